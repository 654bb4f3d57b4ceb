import { join } from 'node:path'
import type { Dataset, Sample } from '../sample.js'
import type { ImageSource } from './decoders.js'

/** Where the image of a sample is read from: a file below the data set's folder, unless the data set says otherwise. */
export async function sourceOf(dataset: Dataset, sample: Sample): Promise<ImageSource> {
  return dataset.open === undefined ? join(dataset.root, sample.path) : dataset.open(sample)
}
