import { createHash } from 'node:crypto'
import type { Problems } from '../problems.js'
import type { ClassPrompt, Dataset, Sample } from '../sample.js'
import type { Selection } from './select.js'

export interface DatasetParts extends Selection {
  readonly kind: string
  readonly root: string
  readonly findings: readonly string[]
  readonly classes: readonly ClassPrompt[]
  readonly problems: Problems
  readonly open?: Dataset['open']
  /** What a person should know of it, beside the problems. */
  readonly notes?: readonly string[]
}

/** A data set in memory. Its hash is made when it is first asked for. */
export class LoadedDataset implements Dataset {
  readonly kind: string
  readonly root: string
  readonly findings: readonly string[]
  readonly classes: readonly ClassPrompt[]
  readonly samples: readonly Sample[]
  readonly problems: Problems
  readonly split: { readonly name: string; readonly hash: string } | null
  readonly weights: Float64Array | null
  readonly open?: Dataset['open']
  readonly notes: readonly string[]
  #hash: string | undefined

  constructor(parts: DatasetParts) {
    this.kind = parts.kind
    this.root = parts.root
    this.findings = parts.findings
    this.classes = parts.classes
    this.samples = parts.samples
    this.problems = parts.problems
    this.split = parts.split
    this.weights = parts.weights
    if (parts.open !== undefined) this.open = parts.open
    this.notes = parts.notes ?? []
  }

  get hash(): string {
    if (this.#hash === undefined) {
      const hash = createHash('sha256')
      hash.update(JSON.stringify([this.kind, this.findings, this.classes.map(({ name }) => name)]))
      for (const { row, path, patient, caption, promptPrefix, label, findings } of this.samples) {
        hash.update(JSON.stringify([row, path, patient, caption, promptPrefix, label, findings?.join() ?? null]))
      }
      this.#hash = hash.digest('hex')
    }
    return this.#hash
  }
}

/** The user's prompts in place of the data set's, by the names of classes. */
export function withPrompts(
  classes: readonly ClassPrompt[],
  own: Readonly<Record<string, readonly string[]>> | undefined,
): readonly ClassPrompt[] {
  const unknown = Object.keys(own ?? {}).find((name) => !classes.some((each) => each.name === name))
  if (unknown !== undefined) {
    throw new Error(
      `expected prompts of the classes ${classes.map(({ name }) => name).join(', ')}, but received some of ${unknown}`,
    )
  }
  return classes.map(({ name, prompts }) => ({ name, prompts: own?.[name] ?? prompts }))
}
