import type { ArgumentsCamelCase, Argv } from 'yargs'
import type { Ensemble } from '../eval/loaded-model.js'
import type { EvaluateOptions, EvaluationPart, EvaluationTask } from '../eval/options.js'
import { type Progress, terminalReporter } from '../setup/report.js'
import { readLaunchEnvironment } from '../torch/distributed/environment.js'
import { type DatasetOptions, datasetOptions, datasetSpecOf } from './dataset-spec.js'

export const command = 'eval <checkpoint> [folder]'
export const describe = 'Evaluate a checkpoint on a data set, with intervals and a report'

const tasks = ['zero-shot', 'retrieval', 'linear-probe', 'fine-tune'] as const satisfies readonly EvaluationTask[]
const ensembles = ['mean-embedding', 'mean-logit', 'max-logit'] as const satisfies readonly Ensemble[]

interface Options extends Omit<DatasetOptions, 'folder'> {
  folder: string | undefined
  checkpoint: string
  task: EvaluationTask | undefined
  labels: 'single' | 'multi' | undefined
  set: string[]
  ensemble: Ensemble | undefined
  report: string | undefined
  images: boolean | undefined
  'plain-paths': boolean | undefined
  name: string | undefined
  prepared: string | undefined
  resamples: number | undefined
  seed: number | undefined
  processes: number | undefined
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return datasetOptions(yargs, { isOptional: true })
    .positional('checkpoint', {
      type: 'string',
      demandOption: true,
      describe: "of a run, or a model folder; or a JSON or YAML file with evaluate()'s options",
    })
    .option('task', {
      choices: tasks,
      describe: 'by the class prompts, or by the head that such a stage trained; default: by the checkpoint',
    })
    .option('labels', {
      choices: ['single', 'multi'] as const,
      describe: 'one class an image, or each finding against its negation; default: by the data',
    })
    .option('set', { type: 'string', array: true, nargs: 1, default: [], describe: 'key.path=value, over the file' })
    .option('ensemble', {
      choices: ensembles,
      describe: 'how several prompts of a class count; default: mean-embedding',
    })
    .option('report', {
      type: 'string',
      describe: 'a folder for report.html, metrics.json, predictions.csv and figures',
    })
    .option('images', { type: 'boolean', describe: '--no-images leaves X-rays out of the report' })
    .option('plain-paths', { type: 'boolean', describe: 'paths of images as they are, not hashed' })
    .option('name', { type: 'string', describe: 'in headings; default: the checkpoint' })
    .option('prepared', { type: 'string', describe: 'a folder that `cleft prepare` made' })
    .option('resamples', { type: 'number', describe: 'of patients, for the intervals; default: 2000' })
    .option('seed', { type: 'number', describe: 'of the resamples; default: 0' })
    .option('processes', { type: 'number', describe: 'of this machine that share the images; default: 1' })
    .option('json', { type: 'boolean', default: false, describe: 'metrics.json on standard output' })
    .example('$0 eval runs/a/checkpoints/step-00040000 CheXpert-v1.0-small --kind chexpert-5x200 --report report', '')
    .epilogue(
      'What is evaluated is the test part of the data; --spec \'{"split": "valid"}\' says another.',
    ) as unknown as Argv<Options>
}

/** evaluate()'s options, from a file of them or from flags. */
async function optionsOf(options: ArgumentsCamelCase<Options>): Promise<EvaluateOptions> {
  const { checkpoint, task, labels, ensemble, report, images, plainPaths, name, prepared, resamples, seed, processes } =
    options
  const { 'max-problems': maxProblems } = options
  const own = {
    ...(task !== undefined && { task }),
    ...(labels !== undefined && { labels }),
    ...(report !== undefined && { report }),
    ...(name !== undefined && { name }),
    ...(prepared !== undefined && { prepared }),
    ...(ensemble !== undefined && { ensemble }),
    ...(resamples !== undefined && { resamples }),
    ...(seed !== undefined && { seed }),
    ...(processes !== undefined && { processes }),
    ...(images !== undefined && { images }),
    ...(plainPaths !== undefined && { plainPaths }),
  }
  if (options.folder === undefined) {
    if (!/\.(json|ya?ml)$/.test(checkpoint)) {
      throw new Error(
        'expected a checkpoint and the folder of a data set, or a file with options (.json, .yaml), but received one path',
      )
    }
    if (options.kind !== undefined || options.spec !== undefined) {
      throw new Error('--kind, --spec: expected a checkpoint and a folder, but received a file with options; use --set')
    }
    const { readOptions } = await import('../train/config-file.js')
    // evaluate() checks them
    return readOptions({
      file: checkpoint,
      set: options.set,
      options: { ...own, ...(maxProblems !== undefined && { data: { maxProblems } }) },
    }) as unknown as EvaluateOptions
  }
  if (options.set.length > 0) {
    throw new Error('--set: expected a file with options, but received a checkpoint and a folder; use the flags')
  }
  const data = datasetSpecOf({ ...options, folder: options.folder }, null)
  return { ...own, from: checkpoint, data }
}

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const { json } = options
  const { evaluate } = await import('../eval/evaluate.js')
  // of processes that a launcher started, the first speaks for all
  const speaks = (readLaunchEnvironment()?.rank ?? 0) === 0
  const reporter = terminalReporter()
  const progress: Partial<Record<EvaluationPart, Progress>> = {}
  const { summary, report: written } = await evaluate({
    ...(await optionsOf(options)),
    onProgress(images, total, part) {
      if (!speaks) return
      progress[part] ??= reporter.progress(part === 'test' ? 'evaluate' : 'thresholds', total, 'images')
      progress[part].update(images)
      if (images === total) progress[part].finish()
    },
  })
  if (!speaks) return
  if (json) process.stdout.write(`${JSON.stringify(summary, null, 2)}\n`)
  else {
    const number = (value: number | null) => (value === null ? 'none' : value.toFixed(4))
    const lines = Object.entries({ ...summary.metrics, ...summary.retrieval?.metrics }).map(
      ([metric, { value, low, high }]) => `${metric.padEnd(20)} ${number(value)}  [${number(low)}, ${number(high)}]`,
    )
    process.stdout.write(`${summary.images} images of ${summary.patients} patients\n${lines.join('\n')}\n`)
  }
  for (const warning of summary.warnings) process.stderr.write(`${warning}\n`)
  if (written !== null) process.stderr.write(`written: ${written.html}\n`)
}
