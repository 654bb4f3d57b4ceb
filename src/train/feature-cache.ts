import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { type ImagePooling, imageFeature } from '../clip/two-tower.js'
import { DataLoader, type Dataset, type LoaderOptions, type Sample, withSamples } from '../data/index.js'
import type { ImageEncoder } from '../models/index.js'
import { messageOf } from '../setup/errors.js'
import { makeFolders } from '../setup/files.js'
import * as torch from '../torch/index.js'

/*
 * Features of a frozen encoder, computed once: without augmentation they never change. They stand in a file that is mapped
 * into memory, and that is found again by everything they depend on.
 */

export interface FeatureSource {
  readonly encoder: ImageEncoder
  /** What names the encoder's weights: the SHA-256 of its checkpoint. */
  readonly encoderHash: string
  readonly pooling: ImagePooling
  readonly dataset: Dataset
  /** How images come to the encoder. `batchSize` goes through it at once. */
  readonly loader: Pick<
    LoaderOptions,
    'decoder' | 'prepared' | 'resize' | 'size' | 'oversample' | 'device' | 'maxProblems' | 'signal'
  > & {
    readonly batchSize: number
  }
  /** For the file, made where it is missing. */
  readonly folder: string
  /** How many images are done, of all. */
  readonly onProgress?: (done: number, total: number) => void
  /** Between batches. Default: a turn of the event loop. */
  readonly pause?: () => Promise<void>
}

/** The features of a data set's images. */
export class FeatureTable implements Disposable {
  constructor(
    /** Of everything that the features depend on. */
    readonly key: string,
    /** [R, width], float32, over the file's own pages on the CPU. */
    readonly features: torch.Tensor,
    /** Those of the data set whose images could be read, in its order; one that is there twice has one feature. */
    readonly samples: readonly Sample[],
    /** The feature's row of each of the samples. */
    readonly rows: Int32Array,
    /** How often each sample is drawn, where the data set says so. */
    readonly weights: Float64Array | null,
    /** Images of the data set that could not be read. */
    readonly unreadable: number,
  ) {}

  get width(): number {
    return this.features.size(1)
  }

  /** The features of some samples, by their index: [n, width], the scope's or the caller's. */
  gather(indices: ArrayLike<number>, device: torch.Device = 'cpu'): torch.Tensor {
    return torch.scope(() => {
      const rows = Array.from(indices, (index) => this.rows[index]!)
      const found = this.features.indexSelect(0, torch.tensor(rows, { dtype: 'int64' }))
      // from pinned memory, so that the host does not wait for the device
      return device.startsWith('cuda') ? found.pinMemory().to(device, { nonBlocking: true }) : found.to(device)
    })
  }

  [Symbol.dispose](): void {
    this.features.dispose()
  }
}

/** A hash of all that changes features: another fraction, label set, resolution or checkpoint has another. */
export function featureKey({ encoderHash, pooling, dataset, loader }: FeatureSource): string {
  const { size = 224, resize = 'published', oversample = 1, decoder, prepared } = loader
  const hash = createHash('sha256')
  hash.update(
    JSON.stringify({
      version: 1,
      encoder: encoderHash,
      pooling,
      root: resolve(dataset.root),
      data: dataset.hash,
      images: prepared?.settings ?? decoder?.settings ?? null,
      size,
      resize,
      ...(oversample === 1 ? {} : { oversample }),
    }),
  )
  // a part of the data set may carry the hash of the whole
  for (const { row, path } of dataset.samples) hash.update(JSON.stringify([row, path]))
  return hash.digest('hex')
}

/**
 * The pooled features of every image, before the projection: read where an earlier run computed them, else computed now.
 *
 * @throws where more images than `maxProblems` cannot be read
 */
export async function cachedFeatures(source: FeatureSource): Promise<FeatureTable> {
  const { folder, dataset } = source
  const key = featureKey(source)
  const path = join(folder, `${key.slice(0, 32)}.safetensors`)
  // what keepSize repeats is one image
  const distinct = [...new Set(dataset.samples)]
  let known = openFeatures(path, key)
  if (known === null) {
    await computeFeatures(source, distinct, path, key)
    known = openFeatures(path, key)
  }
  if (known === null) throw new Error(`expected '${path}' to be what was written there, but it is not`)
  using file = known
  const found = torch.scope(() => file.tensor('samples').toTypedArray() as BigInt64Array)
  const rowOf = new Map(Array.from(found, (index, row) => [distinct[Number(index)]!, row]))
  const kept = dataset.samples.flatMap((sample, index) => (rowOf.has(sample) ? [index] : []))
  const samples = kept.map((index) => dataset.samples[index]!)
  return new FeatureTable(
    key,
    file.tensor('features'),
    samples,
    Int32Array.from(samples, (sample) => rowOf.get(sample)!),
    dataset.weights == null ? null : Float64Array.from(kept, (index) => dataset.weights![index]!),
    dataset.samples.length - samples.length,
  )
}

/** A file of features; null where it is missing or damaged, and can be made again. */
function openFeatures(path: string, key: string): ReturnType<typeof torch.openSafetensors> | null {
  if (!existsSync(path)) return null
  try {
    const file = torch.openSafetensors(path)
    if (file.metadata.get('key') === key) return file
    file.close()
    return null
  } catch (error) {
    if (error instanceof torch.WeightsFileError) return null
    throw error
  }
}

async function computeFeatures(
  { encoder, pooling, dataset, loader, folder, onProgress, pause }: FeatureSource,
  samples: readonly Sample[],
  path: string,
  key: string,
): Promise<void> {
  const batches = new DataLoader(withSamples(dataset, samples), {
    ...loader,
    batchSize: Math.min(loader.batchSize, samples.length),
    seed: 0,
    training: false,
    channels: 3,
  })
  // before hours of work that could not be kept
  try {
    makeFolders(folder)
    accessSync(folder, constants.W_OK)
  } catch (error) {
    throw new Error(
      `expected a folder for features at '${folder}', but it cannot be written to: ${messageOf(error)}; choose another`,
    )
  }
  using scope = new torch.Scope()
  const features = scope.run(() => torch.empty([samples.length, encoder.featureWidth]))
  const found: number[] = []
  const wasTraining = encoder.training
  encoder.eval()
  try {
    for await (const batch of batches) {
      using _ = batch
      torch.scope(() =>
        torch.noGrad(() => {
          const own = imageFeature(encoder, batch.pixels, pooling).float().cpu()
          features.narrow(0, found.length, own.size(0)).copy_(own)
        }),
      )
      found.push(...batch.indices)
      onProgress?.(found.length, samples.length)
      await (pause?.() ?? new Promise<void>((done) => setImmediate(done)))
    }
  } finally {
    encoder.train(wasTraining)
  }
  // also where some could not be read
  if (found.length < samples.length) onProgress?.(samples.length, samples.length)
  if (found.length === 0) throw new Error('expected images that can be read, but there are none')
  scope.run(() => {
    const index = torch.tensor(found, { dtype: 'int64' })
    torch.saveSafetensors({ features: features.narrow(0, 0, found.length), samples: index }, path, {
      metadata: { key },
    })
  })
}
