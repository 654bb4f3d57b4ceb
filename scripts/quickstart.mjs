// The main job from beginning to end, by the commands that a user would type: data, CLEFT's pre-training, its evaluation, and
// the same of a baseline with BERT. On phantoms by default, in a few minutes on a CPU; on real data with --data:
//   npm run quickstart
//   npm run quickstart -- --data CheXpert-v1.0-small [--recipe cleft-chexpert]
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import yargs from 'yargs'
import { hideBin } from 'yargs/helpers'
import { Commands } from './quickstart-commands.mjs'
import { rowOf, tableOf } from './quickstart-table.mjs'

/** What is made of a pre-trained model, in this order: evaluated as it is, or after a stage that begins with it. */
const stages = {
  cleft: ['zero-shot', 'prompt', 'probe-1', 'probe-10', 'probe-100'],
  // its language model trains as a whole: there is nothing to put a context before
  'clip-bert': ['zero-shot', 'probe-1', 'probe-10', 'probe-100'],
}

const options = await yargs(hideBin(process.argv))
  .scriptName('npm run quickstart --')
  .usage('$0 [--data FOLDER]\n\nPre-trains CLEFT and a baseline with BERT, and evaluates both on CheXpert-5x200')
  .option('data', { type: 'string', describe: 'CheXpert as it was downloaded; default: phantoms, which are drawn' })
  .option('recipe', { type: 'string', describe: 'default: cleft-chexpert for --data, cleft-small for phantoms' })
  .option('baseline', { type: 'string', describe: 'its recipe; default: clip-bert, or clip-bert-small' })
  .option('out', { type: 'string', default: 'quickstart', describe: 'where everything goes' })
  .option('patients', { type: 'number', describe: 'of phantoms, for training; default: 1600', conflicts: 'data' })
  .option('per-class', { type: 'number', describe: 'images a class in the test; default: 200, or 80 of phantoms' })
  .option('seed', { type: 'number', default: 0, describe: 'of phantoms and training' })
  .option('stage', {
    choices: stages.cleft,
    array: true,
    default: stages.cleft,
    describe: 'which evaluations, each with the training that it needs',
  })
  .option('set', {
    type: 'string',
    array: true,
    nargs: 1,
    default: [],
    describe: 'of both pre-trainings, as for cleft train: --set steps=100',
  })
  .strict()
  .parse()

const isReal = options.data !== undefined
const { out, patients = 1600, seed } = options
const perClass = options.perClass ?? (isReal ? 200 : 80)
const recipes = {
  cleft: options.recipe ?? (isReal ? 'cleft-chexpert' : 'cleft-small'),
  'clip-bert': options.baseline ?? (isReal ? 'clip-bert' : 'clip-bert-small'),
}
const data = options.data ?? join(out, 'phantoms')
const prepared = join(out, 'shards')
const report = join(out, 'report')

/** The published settings are for a hundred times as many images, and for as many steps. */
const short = {
  prompt: { steps: 400, batchSize: 64, optimizer: { type: 'adamw', lr: 5e-3, weightDecay: 1e-3 } },
  'probe-1': { steps: 600, batchSize: 8 },
  'probe-10': { steps: 600, batchSize: 32 },
  'probe-100': { steps: 600, batchSize: 64 },
}

const started = performance.now()
mkdirSync(out, { recursive: true })
const commands = new Commands(join(out, 'commands.json'))

if (!isReal) {
  await commands.run('phantoms', [
    'phantom',
    'chexpert',
    ...['--out', data, '--patients', patients, '--five-way', perClass, '--seed', seed],
    '--json',
  ])
}
// The test's images are in train.csv: their patients are left out of training.
for (const split of ['all', 'valid']) {
  await commands.run(`prepare-${split}`, [
    'prepare',
    data,
    ...['--kind', 'chexpert', '--spec', JSON.stringify({ split }), '--out', prepared],
    ...(isReal ? [] : ['--size', 128]),
    '--json',
  ])
}

const rows = []
for (const [method, recipe] of Object.entries(recipes)) {
  const pretrained = await commands.run(`${method}-pretrain`, [
    'train',
    ...['--recipe', recipe, '--data', data, '--out', join(out, 'runs', method)],
    ...['--set', `prepared=${prepared}`, '--set', `data.holdout.perClass=${perClass}`, '--set', `seed=${seed}`],
    ...options.set.flatMap((setting) => ['--set', setting]),
    ...['--resume', '--json'],
  ])
  for (const stage of stages[method].filter((each) => options.stage.includes(each))) {
    const trained =
      stage === 'zero-shot' ? pretrained : await trainedFurther(method, stage, pretrained.result.checkpoint)
    rows.push(await evaluated(method, stage, trained))
  }
}

/** Trains a stage that begins with a checkpoint, by a configuration file that is left for looking at. */
async function trainedFurther(method, stage, from) {
  const name = `${method}-${stage}`
  const percent = /^probe-(\d+)$/.exec(stage)?.[1]
  const config = {
    stage: percent === undefined ? stage : 'linear-probe',
    from,
    ...(percent !== undefined && { data: { fraction: Number(percent) / 100 } }),
    ...(isReal ? {} : short[stage]),
    prepared,
    seed,
    out: join(out, 'runs', name),
  }
  const file = join(out, `${name}.json`)
  writeFileSync(file, `${JSON.stringify(config, null, 2)}\n`)
  return await commands.run(`${name}-train`, ['train', file, '--resume', '--json'])
}

/** Evaluates what a training command has left; a row of the table. */
async function evaluated(method, stage, trained) {
  const name = `${method}-${stage}`
  const evaluation = await commands.run(`${name}-eval`, [
    'eval',
    trained.result.checkpoint,
    data,
    ...['--kind', 'chexpert-5x200', '--spec', JSON.stringify({ perClass }), '--prepared', prepared],
    ...['--report', join(report, name), '--name', `${method}, ${stage}`],
    '--json',
  ])
  return rowOf({ name, method, stage, trained, evaluation })
}

await commands.run('compare', ['compare', ...rows.map(({ name }) => join(report, name)), '--report', report, '--json'])
const summary = join(report, 'summary.json')
const seconds = (performance.now() - started) / 1000
const settings = { data: isReal ? data : 'phantoms', recipes, perClass, seed, seconds }
writeFileSync(summary, `${JSON.stringify({ ...settings, runs: rows }, null, 2)}\n`)
process.stdout.write(
  `\n${tableOf(rows)}\n\nfive classes, ${perClass} images each: chance is 0.200; ${seconds.toFixed(0)} s in all\nreport:  ${join(report, 'compare.html')}\nsummary: ${summary}\n`,
)
