import { join } from 'node:path'
import type { Dataset, Sample } from '../sample.js'
import type { ImageSource } from './decoders.js'

/** Where the image of a sample is read from. */
export type SourceOf = (sample: Sample) => ImageSource | Promise<ImageSource>

/** Below the data set's folder. */
export const fileOf =
  ({ root }: Pick<Dataset, 'root'>): SourceOf =>
  ({ path }) =>
    join(root, path)
