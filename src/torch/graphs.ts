import { Event, Stream } from './devices.js'
import { native, type Opaque } from './native.js'
import type { Generator } from './random.js'
import { dispose, keep } from './scope.js'
import { handleOf, type Tensor, wrap } from './tensor.js'

export interface CaptureOptions {
  /** Shares the memory pool of another graph; the two are then never to be replayed at the same time. */
  pool?: Graph | null
  /** Generators that the work draws from, beside the default one. */
  generators?: readonly Generator[]
}

/**
 * A CUDA graph: kernels and their arguments, recorded once and launched together. Inputs, outputs and everything between
 * keep their addresses: write new values into the same input tensors, and read the same output tensors.
 *
 * @throws RangeError where there is no GPU, or no CUDA build
 */
export class Graph {
  readonly #native: Opaque<'graph'> = native.makeGraph()

  /**
   * Records what a function launches on the current stream, which must not be the default one, and runs nothing of it. Only work
   * that does not wait for the GPU can be recorded: `item()` and copies to the CPU fail, and the graph is then empty again.
   */
  capture<T>(run: () => T, options: CaptureOptions = {}): T {
    const { pool = null, generators = [] } = options
    native.beginCapture(
      this.#native,
      pool === null ? null : pool.#native,
      generators.map((each) => each.native),
    )
    let result: T
    try {
      result = run()
    } catch (error) {
      this.#abandon()
      throw error
    }
    try {
      native.endCapture(this.#native)
    } catch (error) {
      native.resetGraph(this.#native)
      throw error
    }
    return result
  }

  #abandon(): void {
    try {
      // the stream records until it is told to stop, and says then that the recording is void
      native.endCapture(this.#native)
    } catch {
      // the first error says why
    }
    native.resetGraph(this.#native)
  }

  /** Launches what was recorded. Random numbers are new ones at each replay. */
  replay(): void {
    native.replayGraph(this.#native)
  }

  /** Forgets the recording and gives its memory pool back. */
  reset(): void {
    native.resetGraph(this.#native)
  }
}

export interface GraphedStepOptions {
  /** Calls for each shape that run as they are, so that libraries and the allocator have settled. Default: 3. */
  warmUp?: number
  /** Leaves whose gradients the step computes: each has the recording's own gradient after a replay. */
  parameters?: readonly Tensor[]
  /** Generators that the step draws from, beside the default one. */
  generators?: readonly Generator[]
  /** Shapes that are recorded; further ones run as they are. Default: 8. */
  maximum?: number
  /** Told once why steps run as they are. */
  onFallback?: (reason: string) => void
}

interface Recording {
  calls: number
  graph: Graph | null
  inputs: readonly Tensor[]
  outputs: readonly Tensor[]
  gradients: readonly (Tensor | null)[]
}

/**
 * A step (forward and backward) that is recorded as a CUDA graph for each shape of its inputs, and replayed from then on.
 * Where it cannot be recorded it runs as it is, and `reason` says why. The optimizer's step stays outside: its learning rate
 * is a number that would be recorded too.
 *
 * @example
 * const step = new torch.cuda.GraphedStep(([x, y]) => { optimizer.zeroGrad(); const loss = lossOf(x, y); loss.backward(); return [loss] },
 *   { parameters: [...optimizer.parameters()] })
 * const [loss] = step.run([x, y]); optimizer.step()
 */
export class GraphedStep {
  readonly #recordings = new Map<string, Recording>()
  readonly #options: Required<Omit<GraphedStepOptions, 'onFallback'>> & Pick<GraphedStepOptions, 'onFallback'>
  #stream: Stream | null = null
  #pool: Graph | null = null
  #reason: string | null = null

  constructor(
    private readonly step: (inputs: readonly Tensor[]) => readonly Tensor[],
    options: GraphedStepOptions = {},
  ) {
    this.#options = { warmUp: 3, parameters: [], generators: [], maximum: 8, ...options }
  }

  /** Why the last step that was not replayed will not be; null while all is well. */
  get reason(): string | null {
    return this.#reason
  }

  /** How many shapes are recorded. */
  get recorded(): number {
    return [...this.#recordings.values()].filter(({ graph }) => graph !== null).length
  }

  /** Runs or replays the step. What it returns holds until the next run. */
  run(inputs: readonly Tensor[]): readonly Tensor[] {
    const elsewhere = inputs.find((each) => !each.device.startsWith('cuda'))
    if (elsewhere !== undefined || inputs.length === 0) {
      this.#fallBack(
        `expected inputs on a GPU, and ${elsewhere === undefined ? 'there is none' : `one is on ${elsewhere.device}`}`,
      )
      return this.step(inputs)
    }
    const key = inputs.map((each) => `${each.device} ${each.dtype} ${each.shape}`).join('; ')
    let recording = this.#recordings.get(key)
    if (recording === undefined) {
      if (this.#recordings.size >= this.#options.maximum) {
        this.#fallBack(
          `expected at most ${this.#options.maximum} shapes, and another came (${key}); pad to fewer lengths`,
        )
        return this.step(inputs)
      }
      recording = { calls: 0, graph: null, inputs: [], outputs: [], gradients: [] }
      this.#recordings.set(key, recording)
    }
    recording.calls += 1
    if (recording.graph !== null) return this.#replay(recording, recording.graph, inputs)
    // beyond the call that was to be recorded: it failed
    if (recording.calls > this.#options.warmUp + 1) return this.step(inputs)
    if (recording.calls <= this.#options.warmUp) return this.#aside(() => this.step(inputs))
    const graph = this.#record(recording, inputs)
    return graph === null ? this.step(inputs) : this.#replay(recording, graph, inputs)
  }

  #fallBack(reason: string): void {
    if (this.#reason === null) this.#options.onFallback?.(reason)
    this.#reason = reason
  }

  /** On a stream of our own, as a recording wants it, with the current one waiting before and after. */
  #aside<T>(run: () => T): T {
    this.#stream ??= Stream.create()
    const current = Stream.current()
    this.#stream.waitEvent(current.recordEvent(new Event()))
    const result = this.#stream.run(run)
    current.waitEvent(this.#stream.recordEvent(new Event()))
    return result
  }

  #record(recording: Recording, inputs: readonly Tensor[]): Graph | null {
    const { parameters, generators } = this.#options
    const graph = new Graph()
    try {
      recording.inputs = keep(inputs.map((each) => each.detach().clone()))
      // what the allocator holds for reuse is of no use to the pool of a graph
      native.emptyCache()
      // a gradient from before would be added to at each replay
      for (const parameter of parameters) parameter.grad = null
      recording.outputs = this.#aside(() =>
        graph.capture(() => keep([...this.step(recording.inputs)]), { pool: this.#pool, generators }),
      )
      recording.gradients = keep(parameters.map((parameter) => parameter.grad))
      recording.graph = graph
      this.#pool ??= graph
      return graph
    } catch (error) {
      this.#fallBack(`the step could not be recorded: ${error instanceof Error ? error.message : error}`)
      dispose(recording.inputs)
      for (const parameter of parameters) parameter.grad = null
      return null
    }
  }

  #replay(recording: Recording, graph: Graph, inputs: readonly Tensor[]): readonly Tensor[] {
    for (const [index, input] of inputs.entries()) recording.inputs[index]!.copy_(input, { nonBlocking: true })
    graph.replay()
    for (const [index, parameter] of this.#options.parameters.entries()) {
      parameter.grad = recording.gradients[index] ?? null
    }
    return recording.outputs.map((each) => wrap(native.alias(handleOf(each, 'GraphedStep', 'output'))))
  }

  dispose(): void {
    for (const { graph, inputs, outputs, gradients } of this.#recordings.values()) {
      dispose([inputs, outputs, gradients.filter((each) => each !== null)])
      graph?.reset()
    }
    this.#recordings.clear()
    this.#pool = null
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
