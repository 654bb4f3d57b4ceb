import type { ArgumentsCamelCase, Argv } from 'yargs'
import * as train from './train.js'

export const command = 'prompt [config]'
export const describe = 'Learn a context in place of the template before class names: train --stage prompt'

export function builder(yargs: Argv): Argv<train.Options> {
  return train
    .builder(yargs)
    .hide('stage')
    .hide('recipe')
    .example('$0 prompt --from runs/a/checkpoints/step-00040000 --set contextLength=30', '')
}

export function handler(options: ArgumentsCamelCase<train.Options>): Promise<void> {
  return train.handler({ ...options, stage: 'prompt' })
}
