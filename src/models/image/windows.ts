import * as torch from '../../torch/index.js'

const { nn } = torch
type Tensor = torch.Tensor
type Grid = readonly [number, number]

/** Zeros on the right and below, up to multiples of the window: [B, rows, columns, D]. */
export function padToWindows(map: Tensor, window: number): Tensor {
  const missing = (size: number) => (window - (size % window)) % window
  const [down, right] = [missing(map.size(1)), missing(map.size(2))]
  return down + right === 0 ? map : nn.functional.pad(map, [0, 0, 0, right, 0, down])
}

/** [B, rows, columns, D] to [B * windows, window², D]. */
export function toWindows(map: Tensor, window: number): Tensor {
  const [batch, rows, columns, width] = map.shape as [number, number, number, number]
  // [B, rows / w, w, columns / w, w, D] to [B, rows / w, columns / w, w, w, D]
  const split = map.reshape([batch, rows / window, window, columns / window, window, width]).transpose(2, 3)
  return split.reshape([-1, window ** 2, width])
}

/** The way back: [B * windows, window², D] to [B, rows, columns, D]. */
export function fromWindows(windows: Tensor, grid: Grid, window: number): Tensor {
  const [rows, columns] = grid
  const split = windows.reshape([-1, rows / window, columns / window, window, window, windows.size(-1)])
  // [B, rows / w, columns / w, w, w, D] to [B, rows / w, w, columns / w, w, D]
  return split.transpose(2, 3).reshape([-1, rows, columns, windows.size(-1)])
}

/** For each pair of positions of a window the row of the bias table: int64 [window⁴]. */
export function relativePositionIndex(window: number, device: torch.Device): Tensor {
  const area = window ** 2
  const index = new BigInt64Array(area ** 2)
  for (let a = 0; a < area; a += 1) {
    for (let b = 0; b < area; b += 1) {
      const down = Math.floor(a / window) - Math.floor(b / window) + window - 1
      const right = (a % window) - (b % window) + window - 1
      index[a * area + b] = BigInt(down * (2 * window - 1) + right)
    }
  }
  return torch.fromTypedArray(index, [area ** 2], { device })
}

/** What keeps apart the parts of a window that the shift brought together: 0, or -100 as published; [windows, N, N]. */
export function shiftMask(grid: Grid, window: number, shift: number, like: Tensor): Tensor {
  const [rows, columns] = grid
  const region = (at: number, size: number) => Number(at >= size - window) + Number(at >= size - shift)
  const regions = new Float32Array(rows * columns)
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      regions[row * columns + column] = region(row, rows) * 3 + region(column, columns)
    }
  }
  const map = torch.fromTypedArray(regions, [1, rows, columns, 1], { device: like.device as torch.Device })
  // [windows, N]
  const ids = toWindows(map, window).squeeze(-1)
  return ids.unsqueeze(1).ne(ids.unsqueeze(2)).to(like.dtype).mul(-100)
}
