import type { ArgumentsCamelCase, Argv } from 'yargs'
import type { LoadedClassifier as ClassifierModel, LoadedModel } from '../eval/index.js'
import { messageOf } from '../setup/errors.js'

export const command = 'predict <checkpoint> <files..>'
export const describe = 'Say which prompt fits an image best, or which class it is of: an X-ray in any format'

interface Options {
  checkpoint: string
  files: string[]
  prompts: string[] | undefined
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('checkpoint', { type: 'string', demandOption: true, describe: 'of a run, or a model folder' })
    .positional('files', { type: 'string', array: true, demandOption: true, describe: 'images' })
    .option('prompts', {
      type: 'string',
      array: true,
      describe:
        'two or more texts, each a class: --prompts edema --prompts "no finding"; not of a linear probe or fine-tuned model',
      nargs: 1,
    })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object a line' }) as unknown as Argv<Options>
}

/** Exit status: 1 where a file cannot be read; the others are answered. */
export async function handler({ checkpoint, files, prompts, json }: ArgumentsCamelCase<Options>): Promise<void> {
  const { load, LoadedClassifier } = await import('../eval/index.js')
  using model = await load<LoadedModel | ClassifierModel>(checkpoint)
  const isClassifier = model instanceof LoadedClassifier
  if (isClassifier !== (prompts === undefined)) {
    throw new Error(
      isClassifier
        ? `expected no --prompts, since '${checkpoint}' is a classifier of ${model.classes.join(', ')}`
        : `expected --prompts, two or more texts, since '${checkpoint}' has no classes of its own`,
    )
  }
  // once for all files
  using asked = isClassifier ? null : await model.encodePrompts(prompts!)
  for (const file of files) {
    try {
      const { label, probabilities, warnings } = await (isClassifier
        ? model.predict(file)
        : model.predict(file, asked!))
      const scores = Object.entries(probabilities).map(([name, value]) => `${name} ${(100 * value).toFixed(1)} %`)
      process.stdout.write(
        json ? `${JSON.stringify({ file, label, probabilities, warnings })}\n` : `${file}: ${scores.join(', ')}\n`,
      )
      if (!json) for (const warning of warnings) process.stderr.write(`${file}: ${warning}\n`)
    } catch (error) {
      process.stderr.write(`cleft: ${messageOf(error)}\n`)
      process.exitCode = 1
    }
  }
}
