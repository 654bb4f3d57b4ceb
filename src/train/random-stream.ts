import { Random } from '../data/index.js'
import * as torch from '../torch/index.js'

/**
 * The random numbers of one run: the default generators as the run sees them. What others draw while the run waits does not
 * change what it draws, so that a run is repeated to the bit whatever its surroundings do.
 */
export class RandomStream implements Disposable {
  readonly #devices: readonly torch.Device[]
  #states: torch.Tensor[]

  constructor(seed: number, device: torch.Device = 'cpu') {
    this.#devices = device === 'cpu' ? ['cpu'] : ['cpu', device]
    const before = this.read()
    torch.manualSeed(seed)
    this.#states = this.read()
    this.write(before)
    torch.dispose(before)
  }

  /** Runs a synchronous function with the run's random numbers. */
  run<T>(work: () => T): T {
    const before = this.read()
    this.write(this.#states)
    try {
      return work()
    } finally {
      torch.dispose(this.#states)
      this.#states = this.read()
      this.write(before)
      torch.dispose(before)
    }
  }

  /** Copies of the states, by device: for checkpoints. They are the caller's. */
  state(): torch.Tensor[] {
    return this.#states.map((state) => state.clone())
  }

  /** Goes on from what {@link state} gave. */
  restore(states: readonly torch.Tensor[]): void {
    if (states.length !== this.#devices.length) {
      throw new RangeError(
        `RandomStream.restore: expected ${this.#devices.length} states, for ${this.#devices.join(' and ')}, but received ${states.length}`,
      )
    }
    const before = this.read()
    // refuses what is no state
    this.write(states)
    torch.dispose(this.#states)
    this.#states = this.read()
    this.write(before)
    torch.dispose(before)
  }

  private read(): torch.Tensor[] {
    return this.#devices.map((device) => torch.keep(torch.getRngState(device)))
  }

  private write(states: readonly torch.Tensor[]): void {
    for (const [index, device] of this.#devices.entries()) torch.setRngState(states[index]!, device)
  }

  [Symbol.dispose](): void {
    torch.dispose(this.#states)
  }
}

/** What a process' random numbers begin with at a step: the first one's are those of a run with one process. */
export function streamSeed(seed: number, rank: number, step: number): number {
  return rank === 0 ? seed + 1 : new Random(seed, 'process', rank, step).integer(2 ** 31)
}

/** Runs asynchronous work that draws from the default generators, which are then as they were. */
export async function seeded<Result>(seed: number, work: () => Promise<Result>): Promise<Result> {
  const before = torch.keep(torch.getRngState())
  torch.manualSeed(seed)
  try {
    return await work()
  } finally {
    torch.setRngState(before)
    before.dispose()
  }
}
