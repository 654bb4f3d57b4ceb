import { createHash } from 'node:crypto'
import type { ClassTargets, ClassTask } from '../clip/classifier.js'
import { isNoFinding } from '../data/captions/chest.js'
import { byRank } from '../data/datasets/select.js'
import { BLANK, type Dataset, type Sample, UNCERTAIN, withSamples } from '../data/index.js'
import { balancedWeights } from '../data/loader/order.js'
import * as torch from '../torch/index.js'

/** What of a data set's labels is learned. */
export interface LabelOptions {
  /** Default: 'single' where images are of classes, else 'multi'. */
  readonly labels?: ClassTask | undefined
  /** Which findings, of several labels. Default: the data set's. */
  readonly findings?: readonly string[] | undefined
  /** Whether each finding is asked for against its negation: then 'No Finding', which has none, is not among the default. */
  readonly isNegated?: boolean
  readonly uncertain: 'exclude' | 'negative' | 'positive'
  readonly blank: 'exclude' | 'negative'
}

/** Which part of the labelled images: as a data set's description says it. */
export interface PartOptions {
  readonly fraction?: number | undefined
  /** Of the part. Default: 42. */
  readonly seed?: number | undefined
  /** Repeats a part up to about the full number, as published for RSNA. */
  readonly keepSize?: boolean | undefined
  /** Draws every class as often. */
  readonly balance?: boolean | undefined
}

const LEFT_OUT = -1

/** Labels as a classifier learns them: one class an image, or a value of each finding. */
export class ClassLabels {
  private constructor(
    readonly task: ClassTask,
    readonly classes: readonly string[],
    /** Of several labels: where the findings are in a sample's. */
    private readonly columns: readonly number[],
    private readonly options: LabelOptions,
  ) {}

  /** @throws RangeError where the data set has no such labels */
  static of(dataset: Dataset, options: LabelOptions): ClassLabels {
    const { classes, findings, samples, kind } = dataset
    const task = options.labels ?? (samples.some(({ label }) => label !== null) ? 'single' : 'multi')
    if (task === 'single') {
      if (options.findings !== undefined) {
        throw new RangeError(
          "findings: expected labels: 'multi' with them, but images are of one class; give it, or none",
        )
      }
      if (classes.length >= 2) {
        return new ClassLabels(
          task,
          classes.map(({ name }) => name),
          [],
          options,
        )
      }
      throw new RangeError(
        `labels: expected data with two classes or more for 'single', but ${kind} in '${dataset.root}' has ${classes.length}`,
      )
    }
    if (findings.length === 0) {
      throw new RangeError(
        `labels: expected data with findings for 'multi', but ${kind} in '${dataset.root}' has none; use 'single'`,
      )
    }
    const names = options.findings ?? findings.filter((name) => !(options.isNegated && isNoFinding(name)))
    const columns = names.map((name) => findings.indexOf(name))
    const unknown = names.find((_, k) => columns[k]! < 0)
    if (unknown !== undefined) {
      throw new RangeError(`findings: expected some of ${findings.join(', ')}, but received '${unknown}'`)
    }
    return new ClassLabels(task, names, columns, options)
  }

  /** 1, 0, or -1 for what is left out: of each class. */
  valuesOf({ label, findings }: Sample): number[] {
    if (this.task === 'single') return this.classes.map((_, k) => (label === null ? LEFT_OUT : Number(label === k)))
    const { uncertain, blank } = this.options
    const counted = { exclude: LEFT_OUT, negative: 0, positive: 1 }
    return this.columns.map((column) => {
      const value = findings?.[column] ?? BLANK
      if (value === UNCERTAIN) return counted[uncertain]
      return value === BLANK ? counted[blank] : value
    })
  }

  /**
   * The images that something is known of, or a part of them: the first in the data set's seeded order, and the first of
   * each class wherever they are in it, so that a small part lacks none. A smaller part is within a larger one.
   */
  labelled(
    dataset: Dataset,
    { fraction = 1, seed = 42, keepSize = false, balance = false }: PartOptions = {},
  ): Dataset {
    if (!(fraction > 0 && fraction <= 1)) {
      throw new RangeError(`data.fraction: expected a number above 0, up to 1, but received ${fraction}`)
    }
    if (balance && this.task === 'multi') {
      throw new RangeError(`data.balance: expected one class an image (labels: 'single'), but findings are several`)
    }
    const known = dataset.samples.filter((sample) => this.valuesOf(sample).some((value) => value !== LEFT_OUT))
    const part = fraction === 1 ? known : this.partOf(known, fraction, seed)
    const samples = keepSize ? Array.from({ length: Math.floor(1 / fraction) }, () => part).flat() : part
    const hash = createHash('sha256').update(dataset.hash)
    for (const { row, path } of samples) hash.update(JSON.stringify([row, path]))
    return {
      ...withSamples(dataset, samples),
      hash: hash.digest('hex'),
      weights: balance ? Float64Array.from(balancedWeights(samples)) : null,
    }
  }

  private partOf(known: readonly Sample[], fraction: number, seed: number): Sample[] {
    const order = byRank(known, seed, 'fraction')
    const count = Math.max(1, Math.round(fraction * known.length))
    const chosen = new Set<Sample>()
    const seen = new Set<string>()
    for (const sample of order) {
      for (const [k, value] of this.valuesOf(sample).entries()) {
        // of one class an image is without all others
        const isWanted = value === 1 || (value === 0 && this.task === 'multi')
        if (!isWanted || seen.has(`${k} ${value}`)) continue
        seen.add(`${k} ${value}`)
        chosen.add(sample)
      }
    }
    for (const sample of order) {
      if (chosen.size >= count) break
      chosen.add(sample)
    }
    return known.filter((sample) => chosen.has(sample))
  }

  /** @throws RangeError where a class has no example, or a finding none of one side */
  checkExamples(samples: readonly Sample[]): void {
    const there = this.classes.map(() => new Set<number>())
    for (const sample of samples) for (const [k, value] of this.valuesOf(sample).entries()) there[k]!.add(value)
    const lacking = this.classes.filter((_, k) => !there[k]!.has(1) || !there[k]!.has(0))
    if (lacking.length === 0) return
    const [what, advice] =
      this.task === 'single'
        ? ['an image of each class', 'take other classes, or other data']
        : ['an image with and one without each finding', 'take fewer findings']
    throw new RangeError(
      `data: expected ${what}, but of ${lacking.join(', ')} there is none among ${samples.length}; ${advice}`,
    )
  }

  /** For a batch; `count` is how many values count. */
  targetsOf(samples: readonly Sample[], device: torch.Device): { targets: ClassTargets; count: number } {
    if (this.task === 'single') {
      const labels = torch.tensor(
        samples.map(({ label }) => label!),
        { dtype: 'int64', device },
      )
      return { targets: { task: 'single', labels }, count: samples.length }
    }
    const all = samples.flatMap((sample) => this.valuesOf(sample))
    const shape = [samples.length, this.classes.length]
    const floats = (value: (each: number) => number) =>
      torch.fromTypedArray(Float32Array.from(all, value), shape, { device })
    const counted = floats((each) => Number(each !== LEFT_OUT))
    return {
      targets: { task: 'multi', values: floats((each) => Number(each === 1)), counted },
      count: all.filter((each) => each !== LEFT_OUT).length,
    }
  }
}
