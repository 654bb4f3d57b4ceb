import * as torch from '../torch/index.js'

/*
 * Out of memory: what is dead is freed, the step is done once more, and only then is it an error, with what holds the memory.
 */

/** What the table of an error counts. */
export interface Holders {
  readonly model: torch.nn.Module
  readonly optimizer: torch.Holder
}

/** A step that did not fit, the second time too. The state is that before it. */
export class OutOfMemoryError extends Error {
  override name = 'OutOfMemoryError'
}

/**
 * Does something that leaves nothing behind where it fails. Where memory ran out, handles that JavaScript has let go of are freed,
 * the allocator's cache is emptied, and it is done once more.
 *
 * @param undo frees what the failed try has left: gradients
 * @throws OutOfMemoryError with a table of what holds memory, where it does not fit the second time
 */
export async function retryOutOfMemory<Result>(
  work: () => Promise<Result>,
  undo: () => void,
  holders: Holders,
): Promise<Result> {
  try {
    return await work()
  } catch (error) {
    if (!torch.isOutOfMemory(error)) throw error
  }
  // outside of the catch: the error, and with it the frames that it holds, is gone
  undo()
  await torch.memory.collect()
  try {
    return await work()
  } catch (error) {
    if (!torch.isOutOfMemory(error)) throw error
    undo()
    throw new OutOfMemoryError(
      `the step was expected to fit into memory, and did not, also not after freeing what was dead (${(error as Error).message.split('\n')[0]}); take a smaller microBatch or batchSize, or image.checkpointing: cleft plan CONFIG says which\n${memoryTable(holders).join('\n')}`,
    )
  }
}

const size = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`.padStart(14)
const bytesOf = (tensors: Iterable<torch.Tensor>): number => {
  let sum = 0
  for (const tensor of tensors) sum += tensor.numel() * tensor.elementSize()
  return sum
}

/** What holds memory, a line each. */
export function memoryTable({ model, optimizer }: Holders): string[] {
  const device = model.parameters()[0]?.device ?? 'cpu'
  const rows: [string, number][] = torch.scope(() => [
    ['weights', bytesOf(model.stateDict().values())],
    ['gradients', bytesOf(model.parameters().flatMap(({ grad }) => grad ?? []))],
    ['optimizer', bytesOf(optimizer[torch.heldTensors]())],
    ['tensors with a handle', torch.memory.counters().bytes],
  ])
  if (device.startsWith('cuda')) {
    const { allocated, peakAllocated, reserved, free, total } = torch.cuda.memoryStatistics(
      Number(device.split(':')[1] ?? 0),
    )
    rows.push(
      [`${device}, allocated`, allocated],
      [`${device}, at the peak`, peakAllocated],
      [`${device}, reserved`, reserved],
      [`${device}, free of the driver`, free],
      [`${device}, in all`, total],
    )
  }
  return rows.map(([name, bytes]) => `  ${name.padEnd(28)}${size(bytes)}`)
}
