import { cuda, deviceOf } from '../devices.js'
import { fromTypedArray } from '../factories.js'
import { noGrad } from '../modes.js'
import { cat, empty, zeros } from '../ops.generated.js'
import { keep, Scope, scope } from '../scope.js'
import type { Tensor } from '../tensor.js'
import type { Device } from '../types.js'
import { allGatherIntoTensor, allReduce, barrier, broadcast, type Work } from './collectives.js'
import { readLaunchEnvironment } from './environment.js'
import { allGatherWithGradient } from './gather-gradient.js'
import { GradientMean } from './gradient-mean.js'
import {
  destroyProcessGroup,
  GROUP_TIMEOUT,
  initProcessGroup,
  isInitialized,
  newGroup,
  type ProcessGroup,
  worldGroup,
} from './group.js'

export interface JoinOptions {
  /** 'auto', 'cpu', 'cuda': on GPUs each process takes the one of its local rank. */
  device?: string
  /** How long the others are waited for, to come and in each collective, in milliseconds. Default: 600,000. */
  timeout?: number
}

/** What most messages fit into: these take one collective. Longer ones take two. */
const MESSAGE_BYTES = 4096
const HEADER_BYTES = 8

/** The group of messages between processes, by the world's: tensors of these are on the CPU. */
const messageGroups = new WeakMap<ProcessGroup, ProcessGroup>()

/**
 * The processes that do one piece of work together, as one of them sees them: what trains and what evaluates asks this
 * object, and not whether there are others. {@link Processes.alone} is one process: everything is then as it was.
 *
 * All processes call the same methods in the same order. Where one has ended, hangs or has failed, the methods of the
 * others throw a TorchError that names it, within the time-out.
 */
export class Processes {
  /** One process by itself. */
  static readonly alone = new Processes(null, null, GROUP_TIMEOUT)

  private constructor(
    private readonly group: ProcessGroup | null,
    private readonly messages: ProcessGroup | null,
    private readonly timeout: number,
  ) {}

  /**
   * The processes that torchrun, Slurm or launch() started this one with; {@link Processes.alone} where none did. The group
   * is made at the first call and stays until the process ends, so that one piece of work can follow on another; one that
   * initProcessGroup() made before is taken as it is.
   *
   * @throws TorchError that names the ranks which did not come within the time-out
   * @throws RangeError for a GPU that is not there
   */
  static async join({ device = 'auto', timeout = GROUP_TIMEOUT }: JoinOptions = {}): Promise<Processes> {
    if (!isInitialized()) {
      const environment = readLaunchEnvironment()
      if (environment === null || environment.worldSize === 1) return Processes.alone
      const backend = deviceOf(device).startsWith('cuda') ? 'nccl' : 'gloo'
      if (backend === 'nccl') deviceOfRank(device, environment.localRank)
      await initProcessGroup({ backend, timeout })
      process.once('beforeExit', () => void destroyProcessGroup())
    }
    const world = worldGroup()
    if (world.size === 1) return Processes.alone
    return new Processes(world, await messageGroupOf(world), timeout)
  }

  /** From 0 on. */
  get rank(): number {
    return this.group?.rank ?? 0
  }

  /** How many there are. */
  get size(): number {
    return this.group?.size ?? 1
  }

  /** Whether this one writes what is written once. */
  get isFirst(): boolean {
    return this.rank === 0
  }

  /** Where this process computes: on GPUs that of its local rank. @throws RangeError for a GPU that is not there */
  deviceOf(device: string): Device {
    return this.group === null ? deviceOf(device) : deviceOfRank(device, this.group.localRank)
  }

  /** What each process says, in the order of their ranks. It goes as JSON. */
  async gather<Value>(value: Value): Promise<Value[]> {
    if (this.messages === null) return [value]
    const bytes = Buffer.from(JSON.stringify(value ?? null))
    const decode = (part: Uint8Array) => JSON.parse(Buffer.from(part).toString('utf8')) as Value
    const head = Buffer.alloc(MESSAGE_BYTES)
    head.writeDoubleLE(bytes.length)
    bytes.copy(head, HEADER_BYTES)
    const heads = await this.gatherBytes(head)
    const lengths = heads.map((each) => Buffer.from(each.buffer, each.byteOffset).readDoubleLE())
    const longest = Math.max(...lengths)
    if (longest <= MESSAGE_BYTES - HEADER_BYTES) {
      return heads.map((each, rank) => decode(each.subarray(HEADER_BYTES, HEADER_BYTES + lengths[rank]!)))
    }
    const whole = Buffer.alloc(longest)
    bytes.copy(whole)
    return (await this.gatherBytes(whole)).map((each, rank) => decode(each.subarray(0, lengths[rank])))
  }

  /** As many of each. */
  private async gatherBytes(bytes: Buffer): Promise<Uint8Array[]> {
    using held = new Scope()
    const { size, timeout } = this
    const [own, all] = held.run(() => [
      fromTypedArray(new Uint8Array(bytes), [bytes.length]),
      empty([size * bytes.length], { dtype: 'uint8' }),
    ])
    await allGatherIntoTensor(all!, own!, { group: this.messages!, timeout })
    const found = all!.toTypedArray() as Uint8Array
    return Array.from({ length: size }, (_, rank) => found.subarray(rank * bytes.length, (rank + 1) * bytes.length))
  }

  /**
   * All processes' rows, [n, ...] of each with its own n, one process after the other: the caller's. On the CPU.
   *
   * @param rows the same dtype and the same further dimensions everywhere; null: this process has none
   * @returns null where nobody has any
   */
  async gatherRows(rows: Tensor | null): Promise<Tensor | null> {
    if (this.messages === null) return rows && keep(scope(() => noGrad(() => rows.clone())))
    using held = new Scope()
    const told = await this.gather(rows && { shape: rows.shape, dtype: rows.dtype })
    const like = told.find((each) => each !== null)
    if (like === undefined || like === null) return null
    const counts = told.map((each) => each?.shape[0] ?? 0)
    const [most, shape, { dtype }] = [Math.max(...counts), like.shape.slice(1), like]
    const [own, all] = held.run(() =>
      noGrad(() => {
        const padded = zeros([most, ...shape], { dtype })
        if (rows !== null) padded.narrow(0, 0, rows.size(0)).copy_(rows)
        return [padded, empty([this.size * most, ...shape], { dtype })]
      }),
    )
    await allGatherIntoTensor(all!, own!, { group: this.messages, timeout: this.timeout })
    const parts = held.run(() => counts.map((count, rank) => all!.narrow(0, rank * most, count)))
    return keep(held.run(() => cat(parts, 0)))
  }

  /**
   * All processes' rows in the order of their numbers, as one process would have them: [n, ...], the caller's. On the CPU.
   *
   * @param numbers of this process' rows; no two of all are the same
   * @returns null where nobody has any
   */
  async gatherInOrder(
    numbers: readonly number[],
    rows: Tensor | null,
  ): Promise<{ numbers: readonly number[]; rows: Tensor } | null> {
    const all = await this.gatherRows(rows)
    if (all === null) return null
    if (this.messages === null) return { numbers, rows: all }
    const found = (await this.gather(numbers)).flat()
    const order = found.map((_, at) => at).sort((a, b) => found[a]! - found[b]!)
    const index = fromTypedArray(BigInt64Array.from(order, BigInt), [order.length])
    const sorted = keep(scope(() => noGrad(() => all.indexSelect(0, index))))
    all.dispose()
    index.dispose()
    return { numbers: order.map((at) => found[at]!), rows: sorted }
  }

  /**
   * All processes' features, [N * B, ...] of [B, ...], in float32 or as they are where they are wider: one process after
   * the other, with a gradient. Each process then has the whole loss, and {@link gradientMean} gives that of the joined
   * batch.
   */
  gatherFeatures(features: Tensor): Tensor {
    if (this.group === null) return features
    const wide = features.dtype === 'float64' ? features : features.float()
    return allGatherWithGradient(wide.contiguous(), { group: this.group })
  }

  /** Own rows of what {@link gatherFeatures} gave. */
  ownRows(all: Tensor): Tensor {
    if (this.group === null) return all
    const count = all.size(0) / this.size
    return all.narrow(0, this.rank * count, count)
  }

  /**
   * What makes the gradients of parameters their mean over all processes, while backward() runs: the caller's.
   *
   * @param named what trains, by name, in the model's order
   */
  gradientMean(named: readonly (readonly [string, Tensor])[]): GradientMean {
    return new GradientMean(this.group, named)
  }

  /** Makes values their means over all processes, in place. */
  async average(values: readonly Tensor[]): Promise<void> {
    if (this.group === null) return
    const { group, timeout } = this
    const works = noGrad(() => values.map((each) => allReduce(each, { group, timeout })))
    for (const work of works) await finished(work, group)
    noGrad(() => {
      for (const each of values) each.div_(this.size)
    })
  }

  /** Makes tensors those of the first process, in place. */
  async share(tensors: readonly Tensor[]): Promise<void> {
    if (this.group === null) return
    const { group, timeout } = this
    const works = noGrad(() => tensors.map((each) => broadcast(each, { group, timeout })))
    for (const work of works) await finished(work, group)
  }

  /** Ends when all have come to it. */
  async meet(): Promise<void> {
    if (this.messages !== null) await barrier({ group: this.messages, timeout: this.timeout })
  }

  /** Tells the others why they cannot go on; they throw it. */
  async fail(reason: string): Promise<void> {
    await this.group?.abort(reason)
    if (this.messages !== this.group) await this.messages?.abort(reason)
  }
}

/** On a GPU its queue waits, and this process works ahead; on the CPU the event loop turns. */
async function finished(work: Work, { backend }: ProcessGroup): Promise<void> {
  if (backend === 'nccl') work.wait()
  else await work
}

function deviceOfRank(device: string, localRank: number): Device {
  const wanted = deviceOf(device)
  if (!wanted.startsWith('cuda')) return wanted
  if (wanted !== 'cuda') {
    throw new RangeError(
      `device: expected 'auto', 'cuda' or 'cpu' for several processes, each of which takes a GPU of its own, but received '${device}'`,
    )
  }
  const count = cuda.deviceCount()
  if (localRank >= count) {
    throw new RangeError(
      `device: expected a GPU for each process of this machine, but there are ${count} and this is the process of local rank ${localRank}; start fewer, or use device: 'cpu'`,
    )
  }
  return `cuda:${localRank}` as Device
}

/** NCCL has no tensors on the CPU: messages then go over Gloo. */
async function messageGroupOf(world: ProcessGroup): Promise<ProcessGroup> {
  const known = messageGroups.get(world)
  if (known !== undefined) return known
  const ranks = Array.from({ length: world.size }, (_, rank) => rank)
  const group = world.backend === 'gloo' ? world : (await newGroup(ranks, { backend: 'gloo' }))!
  messageGroups.set(world, group)
  return group
}
