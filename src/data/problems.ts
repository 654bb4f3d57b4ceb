/** A row or a file that could not be used. */
export interface Problem {
  /** Counted from 0 before any filter; null where it is about a whole file. */
  readonly row: number | null
  readonly path: string | null
  /** In words: what was expected, and what came. */
  readonly problem: string
}

/** How many are written out in an error; more are in {@link Problems.list}. */
const SHOWN = 5
/** How many are kept with their words, so that a table of nothing but wrong rows does not fill the memory. */
const KEPT = 100_000

/** What went wrong with single rows and files, in one report, and the limit up to which work goes on without them. */
export class Problems {
  readonly #list: Problem[] = []
  #count = 0

  /** How many there are. */
  get count(): number {
    return this.#count
  }

  /** The first 100,000. */
  get list(): readonly Problem[] {
    return this.#list
  }

  add(problem: string, at: { row?: number | null; path?: string | null } = {}): void {
    this.#count += 1
    if (this.#list.length < KEPT) this.#list.push({ row: at.row ?? null, path: at.path ?? null, problem })
  }

  /**
   * @param total rows or files in all
   * @param limit the fraction of them that may be left out. Default: 0.01.
   * @throws where there are more: one error with the first few and the number of all
   */
  check(total: number, limit = 0.01): void {
    if (this.#count <= limit * total) return
    const shown = this.#list.slice(0, SHOWN).map(describeProblem)
    const more = this.#count > SHOWN ? `; and ${this.#count - SHOWN} more` : ''
    throw new Error(
      `expected at most ${100 * limit} % of ${total} to be unusable, but ${this.#count} are: ${shown.join('; ')}${more}; mend them, or allow more by maxProblems`,
    )
  }
}

/** 'row 12, a/b.jpg: ...' */
export function describeProblem({ row, path, problem }: Problem): string {
  const place = [row === null ? null : `row ${row}`, path].filter((each) => each !== null).join(', ')
  return place === '' ? problem : `${place}: ${problem}`
}
