import {
  DataLoader,
  type Dataset,
  type Decoder,
  type PreparedImages,
  type Problem,
  Problems,
  type Sample,
  withSamples,
} from '../data/index.js'
import * as torch from '../torch/index.js'
import type { Loaded } from './loaded.js'

const { Processes } = torch.distributed
type Processes = torch.distributed.Processes

export interface EncodeOptions {
  /** Default: 64. */
  batchSize?: number
  decoder?: Decoder
  prepared?: PreparedImages
  signal?: AbortSignal
  /** The fraction of the images that may be unreadable. Default: 0.01. */
  maxProblems?: number
  /** How many images are done, of all. */
  onProgress?: (images: number, total: number) => void
  /** Those that share the images; each gets all that is found. Default: this one. */
  processes?: Processes
}

/** Some of a data set's images in their order, as a model's checkpoint says that it gets them. */
export function evaluationLoader(
  { input, device }: Pick<Loaded, 'input' | 'device'>,
  dataset: Dataset,
  samples: readonly Sample[],
  {
    batchSize = 64,
    decoder,
    prepared,
    signal,
    maxProblems,
    processes = Processes.alone,
  }: Omit<EncodeOptions, 'onProgress'>,
): DataLoader {
  return new DataLoader(withSamples(dataset, samples), {
    batchSize,
    seed: 0,
    training: false,
    channels: 3,
    ...input,
    device,
    rank: processes.rank,
    worldSize: processes.size,
    ...(decoder && { decoder }),
    ...(prepared && { prepared }),
    ...(signal && { signal }),
    ...(maxProblems !== undefined && { maxProblems }),
  })
}

export interface Encoded {
  /** Those that could be read, in the data set's order. */
  readonly samples: readonly Sample[]
  /** What was made of them, [N, ...] each, on the CPU; the caller's. */
  readonly tensors: readonly torch.Tensor[]
  /** Files that could not be read. */
  readonly unreadable: number
}

/**
 * Makes tensors of all images of a loader, batch by batch: of several processes each of its own batches, which are those
 * that one process would have.
 *
 * @param encode of a batch's pixels, as many tensors each time
 * @throws where no image, or too many images cannot be read
 */
export async function encodeAll(
  loader: DataLoader,
  encode: (pixels: torch.Tensor) => readonly torch.Tensor[],
  { processes = Processes.alone, onProgress }: Pick<EncodeOptions, 'processes' | 'onProgress'>,
): Promise<Encoded> {
  const { samples } = loader.dataset
  using scope = new torch.Scope()
  const parts: torch.Tensor[][] = []
  const indices: number[] = []
  for await (const batch of loader) {
    using _ = batch
    const made = scope.run(() => torch.scope(() => encode(batch.pixels).map((each) => each.cpu())))
    for (const [at, each] of made.entries()) {
      parts[at] ??= []
      parts[at].push(each)
    }
    indices.push(...batch.indices)
    // the others are about as far
    onProgress?.(Math.min(indices.length * processes.size, samples.length), samples.length)
    await new Promise(setImmediate)
  }
  const unreadable = await problemsOf(loader, processes)
  const found = (await processes.gather(indices)).flat().sort((a, b) => a - b)
  if (found.length === 0) throw new Error('expected images that can be read, but there are none')
  const kinds = Math.max(...(await processes.gather(parts.length)))
  const tensors: torch.Tensor[] = []
  for (let at = 0; at < kinds; at += 1) {
    const own = parts[at] === undefined ? null : scope.run(() => torch.cat(parts[at]!, 0))
    torch.dispose(parts[at] ?? [])
    tensors.push((await processes.gatherInOrder(indices, own))!.rows)
    own?.dispose()
  }
  return { samples: found.map((index) => samples[index]!), tensors, unreadable }
}

/** How many images could not be read by any process. @throws where they are too many */
async function problemsOf({ problems, dataset }: DataLoader, processes: Processes): Promise<number> {
  if (processes.size === 1) return problems.count
  const all = new Problems()
  for (const { problem, ...place } of (await processes.gather<readonly Problem[]>(problems.list)).flat()) {
    all.add(problem, place)
  }
  all.check(dataset.samples.length)
  return all.count
}
