import { readFileSync } from 'node:fs'

export interface Numbers {
  readonly shape: readonly number[]
  readonly data: ArrayLike<number>
}

/** A safetensors file of integers, read by hand: these tests need no libtorch. */
export function readTensors(path: string): ReadonlyMap<string, Numbers> {
  const bytes = readFileSync(path)
  const start = 8 + Number(bytes.readBigUInt64LE())
  const header = JSON.parse(bytes.toString('utf8', 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >
  const arrays = { U8: Uint8Array, U16: Uint16Array, I16: Int16Array, I32: Int32Array }
  return new Map(
    Object.entries(header).flatMap(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [from, to],
        },
      ]) => {
        if (name === '__metadata__') return []
        const copy = new Uint8Array(bytes.subarray(start + from, start + to)).buffer
        return [[name, { shape, data: new arrays[dtype as keyof typeof arrays](copy) }]]
      },
    ),
  )
}

/** The largest and the mean difference. */
export function difference(found: ArrayLike<number>, wanted: ArrayLike<number>): { largest: number; mean: number } {
  if (found.length !== wanted.length) return { largest: Number.POSITIVE_INFINITY, mean: Number.POSITIVE_INFINITY }
  let largest = 0
  let sum = 0
  for (let at = 0; at < wanted.length; at += 1) {
    const each = Math.abs(found[at]! - wanted[at]!)
    largest = Math.max(largest, each)
    sum += each
  }
  return { largest, mean: sum / wanted.length }
}
