import { native } from './native.js'

/** What calls of one operator took. */
export interface ProfiledOperator {
  /** As libtorch has it: 'aten::addmm', 'AddmmBackward0'. */
  readonly name: string
  readonly calls: number
  /** Milliseconds, with the operators that it called. */
  readonly total: number
  /** Milliseconds, without them. */
  readonly self: number
}

/**
 * Counts the operators that run on any thread of the process, and their time, from now until {@link Profiler.stop}. Costs
 * about a microsecond an operator. On a GPU it is the time of the launch, not of the kernel.
 *
 * @example
 * using profiler = new torch.profiler.Profiler()
 * model.forward(x)
 * console.log(torch.profiler.describe(profiler.stop()))
 */
export class Profiler {
  #operators: readonly ProfiledOperator[] | null = null

  /** @throws Error where one runs already */
  constructor() {
    if (native.startProfiler()) return
    throw new Error('Profiler: expected none to run, but one does; stop() it first')
  }

  /** Ends it. The operators, those that took the longest themselves first; the same at each call. */
  stop(): readonly ProfiledOperator[] {
    this.#operators ??= native
      .stopProfiler()
      .map(([name, calls, total, self]) => ({ name, calls, total, self }))
      .sort((a, b) => b.self - a.self || a.name.localeCompare(b.name))
    return this.#operators
  }

  [Symbol.dispose](): void {
    this.stop()
  }
}

/**
 * A table of operators: self time and its share, total time, calls.
 *
 * @param options.limit rows; default: 20
 */
export function describe(operators: readonly ProfiledOperator[], { limit = 20 }: { limit?: number } = {}): string {
  const whole = operators.reduce((sum, { self }) => sum + self, 0)
  const rows = operators
    .slice(0, limit)
    .map(({ name, calls, total, self }) => [
      self.toFixed(2),
      `${whole === 0 ? '0.0' : ((self / whole) * 100).toFixed(1)} %`,
      total.toFixed(2),
      String(calls),
      name,
    ])
  const table = [['self ms', 'share', 'total ms', 'calls', 'operator'], ...rows]
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)))
  const line = (row: readonly string[]) =>
    row.map((cell, column) => (column === row.length - 1 ? cell : cell.padStart(widths[column]!))).join('  ')
  return table.map(line).join('\n')
}
