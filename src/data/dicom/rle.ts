import { ImageError } from '../images/error.js'

/**
 * DICOM's run-length encoding (PS3.5, annex G): one segment for each byte of each sample, the highest first.
 *
 * @returns the samples, little-endian, plane after plane where there are several
 * @throws ImageError where segments are missing or end early
 */
export function decodeRle(
  frame: Uint8Array,
  pixels: number,
  samplesPerPixel: number,
  bytesPerSample: number,
): Uint8Array {
  const count = samplesPerPixel * bytesPerSample
  if (frame.length < 64) throw new ImageError('expected an RLE frame, but it is shorter than its header')
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  if (view.getUint32(0, true) !== count) {
    throw new ImageError(`expected ${count} RLE segments, but it has ${view.getUint32(0, true)}`)
  }
  const decoded = new Uint8Array(pixels * count)
  for (let segment = 0; segment < count; segment += 1) {
    const start = view.getUint32(4 + 4 * segment, true)
    const end = segment + 1 < count ? view.getUint32(8 + 4 * segment, true) : frame.length
    if (!(start >= 64 && start <= end && end <= frame.length)) {
      throw new ImageError('expected RLE segments inside the frame, but one lies outside')
    }
    const sample = Math.floor(segment / bytesPerSample)
    const byte = bytesPerSample - 1 - (segment % bytesPerSample)
    const first = sample * pixels * bytesPerSample + byte
    if (!unpack(frame, start, end, decoded, first, bytesPerSample, pixels)) {
      throw new ImageError(`expected ${pixels} bytes in each RLE segment, but one has fewer; the file is damaged`)
    }
  }
  return decoded
}

/** PackBits into every `step`-th byte; false where the segment ends before `count` of them. */
function unpack(
  frame: Uint8Array,
  start: number,
  end: number,
  decoded: Uint8Array,
  first: number,
  step: number,
  count: number,
): boolean {
  let at = start
  let target = first
  const stop = first + count * step
  while (target < stop) {
    if (at >= end) return false
    const code = frame[at]!
    at += 1
    if (code < 128) {
      const length = Math.min(code + 1, (stop - target) / step)
      if (at + length > end) return false
      for (let i = 0; i < length; i += 1, target += step) decoded[target] = frame[at + i]!
      at += code + 1
    } else if (code > 128) {
      if (at >= end) return false
      const value = frame[at]!
      at += 1
      const last = Math.min(target + (257 - code) * step, stop)
      for (; target < last; target += step) decoded[target] = value
    }
  }
  return true
}
