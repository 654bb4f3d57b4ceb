import { DataLoader, type Dataset, type Decoder, type PreparedImages } from '../data/index.js'
import * as torch from '../torch/index.js'
import { type EncodedPrompts, type Ensemble, encodePrompts, type LoadedModel, scoresOf } from './loaded-model.js'
import type { Predictions } from './predictions.js'

type Tensor = torch.Tensor

export interface ZeroShotOptions {
  /** Default: 'mean-embedding'. */
  ensemble?: Ensemble
  /** Default: 64. */
  batchSize?: number
  decoder?: Decoder
  prepared?: PreparedImages
  signal?: AbortSignal
  /** How many images are done, of all. */
  onProgress?: (images: number, total: number) => void
}

export interface ZeroShotResult {
  predictions: Predictions
  /** [N, D] float32 on the CPU, in the predictions' order; the caller's. */
  embeddings: Tensor
  /** Files that could not be read. */
  unreadable: number
}

/**
 * Classifies a data set's images by the class prompts, as published: no training, one score a class (cosine x temperature).
 * A prefix of an image's own (EMBED) stands before each prompt.
 *
 * @throws RangeError where the data set has no image of one class
 */
export async function zeroShot(
  model: LoadedModel,
  dataset: Dataset,
  options: ZeroShotOptions = {},
): Promise<ZeroShotResult> {
  const { ensemble = 'mean-embedding', batchSize = 64, decoder, prepared, signal, onProgress } = options
  const { classes } = dataset
  if (classes.length < 2) {
    throw new RangeError(
      `zeroShot: expected a data set with two classes or more, but '${dataset.kind}' has ${classes.length}`,
    )
  }
  const samples = dataset.samples.filter(({ label }) => label !== null)
  if (samples.length === 0) {
    throw new RangeError(
      `zeroShot: expected images that are of one of ${classes.map(({ name }) => name).join(', ')}, but there are none`,
    )
  }
  const loader = new DataLoader(
    { ...plain(dataset), samples },
    {
      batchSize,
      seed: 0,
      training: false,
      channels: 3,
      ...model.input,
      device: model.device,
      ...(decoder && { decoder }),
      ...(prepared && { prepared }),
      ...(signal && { signal }),
    },
  )
  const prompts = new Prompts(model)
  const found: { index: number; scores: Float32Array }[] = []
  const embeddings: Tensor[] = []
  try {
    for await (const batch of loader) {
      using _ = batch
      // classes' prompts behind each image's own prefix: few prefixes, and one for most data sets
      const groups = new Map<string | null, number[]>()
      for (const [at, { promptPrefix }] of batch.samples.entries()) {
        groups.set(promptPrefix, [...(groups.get(promptPrefix) ?? []), at])
      }
      const image = model.encodePixels(batch.pixels)
      const scores = new Float32Array(batch.samples.length * classes.length)
      for (const [prefix, members] of groups) {
        const texts = classes.map((each) =>
          each.prompts.map((prompt) => (prefix === null ? prompt : `${prefix} ${prompt}`)),
        )
        const encoded = await prompts.encode(texts)
        const own = torch.scope(() =>
          image.indexSelect(0, torch.tensor(members, { dtype: 'int64', device: model.device })),
        )
        const values = scoresOf(model, own, encoded, ensemble)
        own.dispose()
        for (const [k, at] of members.entries()) {
          scores.set(values.subarray(k * classes.length, (k + 1) * classes.length), at * classes.length)
        }
      }
      for (const [at, index] of batch.indices.entries()) {
        found.push({ index, scores: scores.subarray(at * classes.length, (at + 1) * classes.length) })
      }
      embeddings.push(torch.keep(torch.scope(() => image.to('cpu'))))
      if (image.device !== 'cpu') image.dispose()
      onProgress?.(found.length, samples.length)
      await new Promise(setImmediate)
    }
    const chosen = found.map(({ index }) => samples[index]!)
    const all = new Float32Array(found.length * classes.length)
    for (const [row, { scores }] of found.entries()) all.set(scores, row * classes.length)
    return {
      predictions: {
        task: classes.length === 2 ? 'binary' : 'multi-class',
        classes: classes.map(({ name }) => name),
        scale: 'logit',
        scores: all,
        labels: Int32Array.from(chosen, ({ label }) => label!),
        patients: chosen.map(({ patient }) => patient),
        attributes: chosen.map(({ attributes }) => attributes),
        paths: chosen.map(({ path }) => path),
      },
      embeddings: torch.keep(torch.scope(() => torch.cat(embeddings, 0))),
      unreadable: loader.problems.count,
    }
  } finally {
    torch.dispose(embeddings)
    prompts.dispose()
  }
}

/** A data set's own fields, also where they are getters. */
function plain(dataset: Dataset): Dataset {
  const { kind, root, findings, classes, samples, problems, hash, open } = dataset
  return { kind, root, findings, classes, samples, problems, hash, ...(open && { open }) }
}

/** Embeddings of prompts, each computed once. */
class Prompts {
  readonly #known = new Map<string, EncodedPrompts>()

  constructor(private readonly model: LoadedModel) {}

  async encode(texts: readonly (readonly string[])[]): Promise<EncodedPrompts> {
    const key = JSON.stringify(texts)
    const made = this.#known.get(key) ?? torch.keep(await encodePrompts(this.model, texts))
    this.#known.set(key, made)
    return made
  }

  dispose(): void {
    for (const { text } of this.#known.values()) text.dispose()
  }
}
