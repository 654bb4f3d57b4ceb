import { existsSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { JsonObject } from '../models/index.js'
import { readProgress, TRAINING } from './checkpoint.js'
import { mergeOptions } from './config-file.js'

/*
 * What a stage takes over from the checkpoint that it begins with (`from`): its data, and its run's folder as a place.
 */

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Options with what they do not say taken from their checkpoint. Nothing is checked but that it is there. */
export function inherited(options: JsonObject): JsonObject {
  const { from, stage } = options
  if (typeof from !== 'string' || typeof stage !== 'string') return options
  if (!existsSync(from)) throw new RangeError(`from: expected a checkpoint, but there is no '${from}'`)
  const before = existsSync(join(from, TRAINING)) ? (readProgress(from).options as JsonObject) : {}
  const data = isObject(before.data)
    ? mergeOptions(before.data, isObject(options.data) ? options.data : {})
    : options.data
  // RUN/checkpoints/step-00000100
  const checkpoints = dirname(from)
  const out = basename(checkpoints) === 'checkpoints' ? join(dirname(checkpoints), stage) : undefined
  return {
    ...(data !== undefined && { data }),
    ...(out !== undefined && { out }),
    ...Object.fromEntries(Object.entries(options).filter(([name]) => name !== 'data')),
  }
}
