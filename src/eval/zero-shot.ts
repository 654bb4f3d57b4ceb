import { CHEST_TEMPLATE, findingWords, isNoFinding } from '../data/captions/chest.js'
import type { ClassPrompt, Dataset, Sample } from '../data/index.js'
import * as torch from '../torch/index.js'
import { encodeDataset } from './encode-dataset.js'
import type { EncodeOptions } from './evaluation-loader.js'
import { type Ensemble, encodePrompts, type LoadedModel, scoresOf } from './loaded-model.js'
import type { Predictions } from './predictions.js'

export interface ZeroShotOptions extends EncodeOptions {
  /**
   * 'single': one class an image. 'multi': each finding by itself, its prompt against its negation. Default: 'single' where
   * images are of classes.
   */
  labels?: 'single' | 'multi'
  /** Default: 'mean-embedding'. */
  ensemble?: Ensemble
}

export interface ZeroShotResult {
  /** What stands for each class or finding; none for a trained head. */
  prompts: readonly ClassPrompt[]
  predictions: Predictions
  /** Those of the predictions, in their order. */
  samples: readonly Sample[]
  /** [N, D] float32 on the CPU, in the predictions' order; the caller's. */
  embeddings: torch.Tensor
  /** Files that could not be read. */
  unreadable: number
}

/**
 * Classifies a data set's images by the class prompts, as published: no training, one score a class (cosine x temperature).
 * A prefix of an image's own (EMBED) stands before each prompt. Of several findings each is asked for by two prompts, it and
 * its negation; its score is the difference, the log-odds of the two: a cosine alone has no zero point.
 *
 * @throws RangeError where the data set has no image of one class, or none with findings
 */
export async function zeroShot(
  model: LoadedModel,
  dataset: Dataset,
  { labels, ensemble = 'mean-embedding', ...options }: ZeroShotOptions = {},
): Promise<ZeroShotResult> {
  const isSingle = dataset.samples.some(({ label }) => label !== null)
  const isMulti = (labels ?? (isSingle ? 'single' : 'multi')) === 'multi'
  const asked = isMulti ? askedFindings(dataset) : askedClasses(dataset)
  const labelled = dataset.samples.filter(({ label, findings }) => (isMulti ? findings : label) !== null)
  if (labelled.length === 0) {
    const wanted = isMulti ? 'with findings' : `that are of one of ${asked.map(({ name }) => name).join(', ')}`
    throw new RangeError(`zeroShot: expected images ${wanted}, but there are none`)
  }
  const { samples, embeddings, unreadable } = await encodeDataset(model, dataset, labelled, options)
  try {
    const texts = [...asked.map(({ prompts }) => prompts), ...asked.flatMap(({ negations }) => negations ?? [])]
    const all = await scores(model, samples, embeddings, texts, ensemble)
    const shared = {
      classes: asked.map(({ name }) => name),
      scale: 'logit' as const,
      scores: isMulti ? differences(all, asked.length) : all,
      patients: samples.map(({ patient }) => patient),
      attributes: samples.map(({ attributes }) => attributes),
      paths: samples.map(({ path }) => path),
    }
    const predictions: Predictions = isMulti
      ? { ...shared, task: 'multi-label', labels: findingLabels(dataset, asked, samples) }
      : {
          ...shared,
          task: asked.length === 2 ? 'binary' : 'multi-class',
          labels: Int32Array.from(samples, ({ label }) => label!),
        }
    const prompts = asked.map(({ name, prompts, negations = [] }) => ({
      name,
      prompts: [...prompts, ...negations.flat()],
    }))
    return { prompts, predictions, samples, embeddings, unreadable }
  } catch (error) {
    embeddings.dispose()
    throw error
  }
}

interface Asked extends ClassPrompt {
  /** Of a finding beside others: one list. */
  readonly negations?: readonly (readonly string[])[]
}

function askedClasses({ classes, kind }: Dataset): readonly Asked[] {
  if (classes.length >= 2) return classes
  throw new RangeError(`zeroShot: expected a data set with two classes or more, but '${kind}' has ${classes.length}`)
}

function findingLabels({ findings }: Dataset, asked: readonly Asked[], samples: readonly Sample[]): Int8Array {
  const columns = asked.map(({ name }) => findings.indexOf(name))
  return Int8Array.from(samples.flatMap((sample) => columns.map((column) => sample.findings![column]!)))
}

/** All but 'No Finding', whose negation would say nothing. A data set's own prompts are taken for what they name. */
function askedFindings({ findings: all, classes, kind, root }: Dataset): Asked[] {
  const findings = all.filter((name) => !isNoFinding(name))
  if (findings.length === 0) {
    throw new RangeError(`labels: expected data with findings for 'multi', but ${kind} in '${root}' has none`)
  }
  return findings.map((name) => {
    const words = findingWords(name)
    const own = classes.find((each) => each.name === name)?.prompts ?? [`${CHEST_TEMPLATE} ${words}`]
    const without = own.find((prompt) => !prompt.toLowerCase().includes(words))
    if (without !== undefined) {
      throw new RangeError(
        `labels: expected prompts that name their finding, to negate it, but '${without}' has no '${words}'; use 'single', or other prompts`,
      )
    }
    return { name, prompts: own, negations: [own.map((prompt) => prompt.toLowerCase().replace(words, `no ${words}`))] }
  })
}

/** [N, texts], row by row. Prefixes are few, and one for most data sets: each is encoded with all texts once. */
async function scores(
  model: LoadedModel,
  samples: readonly Sample[],
  embeddings: torch.Tensor,
  texts: readonly (readonly string[])[],
  ensemble: Ensemble,
): Promise<Float32Array> {
  const all = new Float32Array(samples.length * texts.length)
  const groups = new Map<string | null, number[]>()
  for (const [row, { promptPrefix }] of samples.entries()) {
    const known = groups.get(promptPrefix)
    if (known) known.push(row)
    else groups.set(promptPrefix, [row])
  }
  for (const [prefix, rows] of groups) {
    const prefixed = texts.map((own) => own.map((prompt) => (prefix === null ? prompt : `${prefix} ${prompt}`)))
    const encoded = await encodePrompts(model, prefixed)
    try {
      const found = torch.scope(() => {
        const own = embeddings.indexSelect(0, torch.tensor(rows, { dtype: 'int64' })).to(model.device)
        return scoresOf(model, own, encoded, ensemble)
      })
      for (const [k, row] of rows.entries()) {
        all.set(found.subarray(k * texts.length, (k + 1) * texts.length), row * texts.length)
      }
    } finally {
      encoded.text.dispose()
    }
    await new Promise(setImmediate)
  }
  return all
}

/** @param scores [N, 2 C], findings and then their negations */
function differences(scores: Float32Array, count: number): Float32Array {
  return Float32Array.from({ length: scores.length / 2 }, (_, at) => {
    const row = 2 * count * Math.floor(at / count)
    return scores[row + (at % count)]! - scores[row + count + (at % count)]!
  })
}
