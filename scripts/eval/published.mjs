// What the scripts beside this one share: the command line, the stages, the table. Each of them is one published evaluation
// (Du et al., MICCAI 2024, tables 1 to 3) on a folder as it is downloaded, or on phantoms in the same layout.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ConsoleLog, evaluate, train } from 'cleft'
import yargs from 'yargs'
import { hideBin } from 'yargs/helpers'

/**
 * @typedef {object} Published
 * @property {string} name of the folder that it leaves, below --out
 * @property {string} about
 * @property {readonly ('zero-shot' | 'linear-probe' | 'fine-tune')[]} tasks
 * @property {(root: string, perClass: number | undefined) => object} test what is tested on
 * @property {(root: string, perClass: number | undefined) => object} [training] what a probe and a fine-tuned model learn from
 */

/** @param {Published} published */
export async function run(published) {
  try {
    await measureAll(published)
  } catch (error) {
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  }
}

async function measureAll({ name, about, tasks, test, training }) {
  const learns = tasks.filter((task) => task !== 'zero-shot')
  const options = await yargs(hideBin(process.argv))
    .scriptName(name)
    .usage(`$0 --from CHECKPOINT --data FOLDER\n\n${about}`)
    .option('from', { type: 'string', demandOption: true, describe: 'a checkpoint of a run, or a model folder' })
    .option('data', { type: 'string', demandOption: true, describe: 'the data set as it was downloaded, or phantoms' })
    .option('out', { type: 'string', default: 'evaluations', describe: 'where reports and runs go' })
    .option('prepared', { type: 'string', describe: 'a folder that `cleft prepare` made' })
    .option('per-class', {
      type: 'number',
      describe: 'images a class in the test, for small sets; default: as published',
    })
    .option('task', { choices: tasks, array: true, default: tasks, describe: 'which of its tasks' })
    .option('fraction', {
      type: 'number',
      array: true,
      default: [0.01, 0.1, 1],
      describe: 'of the training images',
      hidden: learns.length === 0,
    })
    .option('steps', { type: 'number', describe: 'of training; default: as published', hidden: learns.length === 0 })
    .option('batch-size', {
      type: 'number',
      describe: 'of training; default: as published',
      hidden: learns.length === 0,
    })
    .option('device', {
      type: 'string',
      describe: "'cpu' or 'cuda'; default: a GPU for training where there is one, the CPU for evaluation",
    })
    .strict()
    .parse()
  const { from, data, out, prepared, perClass, task: chosen, fraction, steps, batchSize, device } = options
  const folder = join(out, name)
  const common = { ...(prepared !== undefined && { prepared }), ...(device !== undefined && { device }) }
  const rows = []

  const measured = async (title, task, checkpoint) => {
    const report = join(folder, title.replaceAll(/[^\w.]+/g, '-').replace(/-$/, ''))
    const log = new ConsoleLog()
    const { summary } = await evaluate({
      from: checkpoint,
      task,
      data: test(data, perClass),
      report,
      name: `${about}: ${title}`,
      onProgress: (images, total, part) =>
        log.write({ type: 'progress', what: part === 'test' ? title : `${title}, thresholds`, images, total }),
      ...common,
    })
    for (const warning of summary.warnings) process.stderr.write(`${title}: ${warning}\n`)
    const { accuracy, balancedAccuracy, auc } = summary.metrics
    rows.push({ evaluation: title, images: summary.images, accuracy, balancedAccuracy, auc, report })
    const shown = ({ value, low, high } = {}) => {
      if (value == null) return 'none'
      return low == null || high == null
        ? value.toFixed(3)
        : `${value.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`
    }
    process.stdout.write(
      `${title}: accuracy ${shown(accuracy)}, AUC ${shown(auc)}, ${summary.images} images: ${report}\n`,
    )
  }

  if (chosen.includes('zero-shot')) await measured('zero-shot', 'zero-shot', from)
  for (const stage of learns.filter((each) => chosen.includes(each))) {
    for (const part of [...fraction].sort((a, b) => a - b)) {
      const percent = Number((100 * part).toPrecision(6))
      const title = `${stage} on ${percent} %`
      const job = train({
        stage,
        from,
        data: { ...training(data, perClass), fraction: part },
        out: join(folder, `${stage}-${percent}`),
        // a script that was stopped goes on where it was
        resume: true,
        ...(steps !== undefined && { steps }),
        ...(batchSize !== undefined && { batchSize }),
        ...common,
      })
      const log = new ConsoleLog()
      try {
        for await (const event of job) log.write(event)
      } finally {
        log.close()
      }
      const { best, checkpoint } = await job
      await measured(title, stage, best ?? checkpoint)
    }
  }
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'results.json'), `${JSON.stringify({ about, from, data, rows }, null, 2)}\n`)
  process.stdout.write(`written: ${join(folder, 'results.json')}\n`)
}
