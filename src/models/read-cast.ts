import { closeSync, openSync, readSync } from 'node:fs'
import { endianness } from 'node:os'
import * as torch from '../torch/index.js'

/**
 * How many bytes are read at once: the length of what readCast() is given to read into. Small: glibc gives such pieces
 * from its heap, and weights pages of their own. Pieces of a megabyte made holes of half of the model's size.
 */
export const PIECE = 64 << 10

/** What bytes of a dtype are looked at as; other dtypes are not read in pieces. */
const views = {
  float32: { bytes: 4, view: (data: ArrayBuffer, count: number) => new Float32Array(data, 0, count) },
  float64: { bytes: 8, view: (data: ArrayBuffer, count: number) => new Float64Array(data, 0, count) },
  float16: { bytes: 2, view: (data: ArrayBuffer, count: number) => new Int16Array(data, 0, count) },
  bfloat16: { bytes: 2, view: (data: ArrayBuffer, count: number) => new Int16Array(data, 0, count) },
}

/** Whether {@link readCast} can read a dtype. */
export function canReadCast(dtype: torch.DType): dtype is keyof typeof views {
  return dtype in views && endianness() === 'LE'
}

/**
 * Fills a contiguous tensor with numbers of another dtype out of a file, piece by piece. A mapped tensor would do, but the
 * pages of what is cast would count as this process's memory until the whole file is let go of: with a model stored in
 * float32 and wanted in bfloat16, three times its size.
 *
 * @param data PIECE bytes to read into, the same for all tensors of a file
 */
export function readCast(
  path: string,
  byteOffset: number,
  dtype: keyof typeof views,
  into: torch.Tensor,
  data: ArrayBuffer,
): void {
  const { bytes, view } = views[dtype]
  const step = PIECE / bytes
  const file = openSync(path, 'r')
  try {
    torch.scope(() => {
      const flat = into.view(-1)
      const total = flat.numel()
      for (let start = 0; start < total; start += step) {
        const count = Math.min(step, total - start)
        readExactly(file, new Uint8Array(data, 0, count * bytes), byteOffset + start * bytes, path)
        torch.scope(() => {
          const raw = torch.fromTypedArray(view(data, count), [count])
          const piece = raw.dtype === dtype ? raw : (torch.callOperator('aten::view.dtype', raw, dtype) as torch.Tensor)
          flat.narrow(0, start, count).copy_(piece)
        })
      }
    })
  } finally {
    closeSync(file)
  }
}

function readExactly(file: number, into: Uint8Array, position: number, path: string): void {
  for (let done = 0; done < into.length; ) {
    const read = readSync(file, into, done, into.length - done, position + done)
    if (read === 0) {
      throw new torch.WeightsFileError(
        path,
        `expected '${path}' to stay as long as it was, but it became shorter; load it again`,
      )
    }
    done += read
  }
}
