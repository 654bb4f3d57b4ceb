import type { ClassTargets, ClassTask } from '../clip/classifier.js'
import { BLANK, type Dataset, type Sample, UNCERTAIN } from '../data/index.js'
import { balancedWeights } from '../data/loader/order.js'
import * as torch from '../torch/index.js'

/** What of a data set's labels is learned. */
export interface LabelOptions {
  /** Default: 'single' where images are of classes, else 'multi'. */
  readonly labels?: ClassTask | undefined
  /** Which findings, of several labels. Default: the data set's. */
  readonly findings?: readonly string[] | undefined
  readonly uncertain: 'exclude' | 'negative' | 'positive'
  readonly blank: 'exclude' | 'negative'
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
    const names = options.findings ?? findings
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

  /** The images that something is known of. Of a data set without weights all are drawn alike, else every class is. */
  labelled(dataset: Dataset, { balance = false }: { balance?: boolean } = {}): Dataset {
    const { kind, root, findings, classes, problems, hash, open } = dataset
    const samples = dataset.samples.filter((sample) => this.valuesOf(sample).some((value) => value !== LEFT_OUT))
    if (balance && this.task === 'multi') {
      throw new RangeError(`data.balance: expected one class an image (labels: 'single'), but findings are several`)
    }
    return {
      ...{ kind, root, findings, classes, problems, hash, samples },
      ...(open && { open }),
      weights: balance ? Float64Array.from(balancedWeights(samples)) : null,
    }
  }

  /** @throws RangeError where a class has no example, or a finding none of one side */
  checkExamples(samples: readonly Sample[]): void {
    const there = this.classes.map(() => new Set<number>())
    for (const sample of samples) for (const [k, value] of this.valuesOf(sample).entries()) there[k]!.add(value)
    const lacking = this.classes.filter((_, k) => !there[k]!.has(1) || !there[k]!.has(0))
    if (lacking.length === 0) return
    const [what, advice] =
      this.task === 'single'
        ? ['an image of each class', 'take a larger fraction, or other classes']
        : ['an image with and one without each finding', 'take a larger fraction, or fewer findings']
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
      torch.scope(() => torch.fromTypedArray(Float32Array.from(all, value), shape).to(device))
    const counted = floats((each) => Number(each !== LEFT_OUT))
    return {
      targets: { task: 'multi', values: floats((each) => Number(each === 1)), counted },
      count: all.filter((each) => each !== LEFT_OUT).length,
    }
  }
}
