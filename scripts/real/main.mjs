// The main job on real images: a folder of X-rays by class, a table about them, a language model. Prepares, trains, evaluates
// and reports, fold by fold: `npm run real -- --images DIR --table CSV --lm DIR`.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import yargs from 'yargs'
import { hideBin } from 'yargs/helpers'
import { evaluate } from '../../dist/eval/index.js'
import { exitOnSignals, onInterrupt } from '../../dist/setup/exit.js'
import { terminalReporter } from '../../dist/setup/report.js'
import { ConsoleLog, readRunOptions, train } from '../../dist/train/index.js'
import { prepareAll, readImages, writeFold } from './dataset.mjs'
import { pooled, shownTable } from './results.mjs'

const STAGES = ['prompt', 'linear-probe', 'fine-tune']

const options = await yargs(hideBin(process.argv))
  .scriptName('npm run real --')
  .usage('$0 --images DIR --table CSV --lm DIR')
  .option('images', { type: 'string', demandOption: true, describe: 'a folder with a folder of X-rays for each class' })
  .option('table', {
    type: 'string',
    demandOption: true,
    describe: 'what is known of them: CSV (also .gz), JSONL or Parquet',
  })
  .option('lm', {
    type: 'string',
    demandOption: true,
    describe: 'a language model: a folder as transformers writes it, or a preset',
  })
  .option('recipe', { type: 'string', default: 'few-images', describe: 'of pre-training' })
  .option('set', { type: 'string', array: true, nargs: 1, default: [], describe: 'key.path=value, over the recipe' })
  .option('folds', { type: 'string', default: '0', describe: "which of the five: '0', '0,2', '0..4'" })
  .option('random-folds', {
    type: 'boolean',
    default: false,
    describe: 'folds by image, as published for these images, not by patient',
  })
  .option('stages', { type: 'string', default: STAGES.join(), describe: 'after pre-training' })
  .option('out', { type: 'string', default: 'runs/real', describe: 'where everything goes' })
  .option('image-column', { type: 'string', default: 'Image Index', describe: "the file's name" })
  .option('findings-column', { type: 'string', default: 'Finding Labels', describe: "the findings, '|' between them" })
  .option('patient-column', { type: 'string', default: 'Patient ID' })
  .option('sex-column', { type: 'string', default: 'Patient Gender' })
  .option('age-column', { type: 'string', default: 'Patient Age' })
  .option('view-column', { type: 'string', default: 'View Position' })
  .option('words', {
    type: 'string',
    array: true,
    default: ['No_findings=no finding'],
    describe: "a class's words, where they are not the folder's name: CLASS=words",
  })
  .strict()
  .parse()

async function main() {
  const { images, table, out } = options
  const folds = foldsOf(options.folds)
  const stages = options.stages.split(',').filter((stage) => stage !== '')
  const wrong = stages.find((stage) => !STAGES.includes(stage))
  if (wrong !== undefined) throw new Error(`--stages: expected some of ${STAGES.join(', ')}, but received '${wrong}'`)
  const read = await readImages({ images, table, columns: columnsOf(options), words: wordsOf(options.words) })
  process.stderr.write(`${read.rows.length} images of ${read.classes.join(', ')}; ${read.known} are in the table\n`)
  const prepared = join(out, 'prepared')
  const all = writeFold({ ...options, folder: join(out, 'all'), fold: 0, read, random: false })
  await prepareAll(all, prepared, { reporter: terminalReporter() })
  const results = []
  for (const fold of folds) results.push(...(await oneFold(fold, read, prepared, stages)))
  const rows = await pooled(results)
  mkdirSync(out, { recursive: true })
  const file = join(out, 'results.json')
  const told = results.map(({ predictions, ...rest }) => rest)
  writeFileSync(file, `${JSON.stringify({ options, folds: told, all: rows }, null, 2)}\n`)
  process.stdout.write(`${shownTable(rows)}\n${file}\n`)
}

function foldsOf(text) {
  const [first, last] = text.split('..').map(Number)
  const folds =
    last === undefined ? text.split(',').map(Number) : Array.from({ length: last - first + 1 }, (_, k) => first + k)
  if (folds.length > 0 && folds.every((fold) => Number.isInteger(fold) && fold >= 0 && fold < 5)) return folds
  throw new Error(`--folds: expected folds from 0 to 4, as in 0,2 or 0..4, but received '${text}'`)
}

const columnsOf = (given) =>
  Object.fromEntries(
    ['image', 'findings', 'patient', 'sex', 'age', 'view'].map((name) => [name, given[`${name}-column`]]),
  )

function wordsOf(list) {
  return Object.fromEntries(
    list.map((each) => {
      const [name, words] = each.split('=')
      if (name && words) return [name, words]
      throw new Error(`--words: expected CLASS=words, but received '${each}'`)
    }),
  )
}

/** Pre-training and what follows it, each evaluated on the fold's test part. */
async function oneFold(fold, read, prepared, stages) {
  const folder = join(options.out, options['random-folds'] ? `random-fold-${fold}` : `fold-${fold}`)
  const data = writeFold({ ...options, folder: join(folder, 'data'), fold, read, random: options['random-folds'] })
  const results = []
  const measured = async (stage, task, run) => {
    const from = run.checkpoint
    const { summary, predictions, report } = await evaluate({
      from,
      task,
      data: { ...data, split: 'test' },
      prepared,
      report: join(folder, `report-${stage}`),
      name: stage === task ? `fold ${fold}` : `fold ${fold}, ${stage}`,
    })
    const { accuracy, auc } = summary.metrics
    process.stderr.write(
      `fold ${fold}, ${stage}: accuracy ${accuracy.value.toFixed(4)}, AUC ${auc.value.toFixed(4)}: ${report.html}\n`,
    )
    results.push({ fold, stage, images: summary.images, accuracy, auc, report: report.html, predictions })
  }
  const { recipe, set, lm } = options
  const own = { data, text: lm, prepared, out: join(folder, 'pretrain') }
  const pretrained = await trained(readRunOptions({ recipe, set, options: own }))
  await measured('zero-shot', 'zero-shot', pretrained)
  // the last one: rates end at nothing and weights are averaged, where the best of few validation images is chance
  const from = pretrained.checkpoint
  let probe
  for (const stage of stages) {
    // fine-tuning goes on from the probe: few images would not teach a layer of random weights without harm
    const begins = (stage === 'fine-tune' && probe) || from
    const run = await trained({ ...stageOptions(stage), stage, from: begins, prepared, out: join(folder, stage) })
    if (stage === 'linear-probe') probe = run.checkpoint
    await measured(stage, stage === 'prompt' ? 'zero-shot' : stage, run)
  }
  return results
}

/** For so few images; what is not said is the stage's own default. */
function stageOptions(stage) {
  if (stage === 'prompt') return { steps: 100, optimizer: { lr: 1e-2, warmupSteps: 10 } }
  if (stage === 'linear-probe') return { steps: 500 }
  const optimizer = { lr: 1e-4, weightDecay: 0.05 }
  return { steps: 300, batchSize: 32, optimizer, ema: { decay: 0.99 }, validation: { metric: 'auc', every: 100 } }
}

/** A run that was trained before is taken as it is, and one that was stopped goes on. */
async function trained(run) {
  const stop = new AbortController()
  const job = train({ ...run, resume: true }, { signal: stop.signal })
  const log = new ConsoleLog()
  let release = () => {}
  try {
    for await (const event of job) {
      log.write(event)
      // before it there is nothing to save
      if (event.type !== 'start') continue
      release = onInterrupt((status) => {
        log.line('stopping, with a checkpoint; once more ends at once')
        process.exitCode = status
        stop.abort(new Error('stopped; the same command goes on'))
      })
    }
    return await job
  } finally {
    release()
    log.close()
  }
}

exitOnSignals()
try {
  await main()
} catch (error) {
  process.stderr.write(`${error.message}\n`)
  process.exitCode ||= 1
}
