import type { ImageInput } from '../clip/model-files.js'
import { type Box, inputOf, prepareImage } from '../data/index.js'
import * as torch from '../torch/index.js'

/** A file, its bytes, or what an encoder takes: pixels [3, size, size]. */
export type ImageSource = string | Uint8Array | torch.Tensor

export interface ReadOptions {
  readonly input: ImageInput
  readonly device: torch.Device
}

/**
 * Reads images and does something with their pixels, [N, 3, size, size], which are gone afterwards.
 *
 * @returns what it gave, and for each image what a person should know of its file
 * @throws ImageError for a file that cannot be read
 */
export async function withPixels<Result>(
  images: ImageSource | readonly ImageSource[],
  { input, device }: ReadOptions,
  use: (pixels: torch.Tensor) => Result,
): Promise<{ result: Result; warnings: (readonly string[])[] }> {
  const list = (Array.isArray(images) ? images : [images]) as readonly ImageSource[]
  if (list.length === 0) throw new RangeError('encodeImage: expected one image at least, but received none')
  const read = await Promise.all(list.map((image) => (image instanceof torch.Tensor ? image : prepareImage(image))))
  const { size, resize, oversample } = input
  const result = torch.scope(() => {
    const pixels = read.map((image) => {
      if (image instanceof torch.Tensor) return image.ndim === 3 ? image.unsqueeze(0) : image
      const { padded, box } = image
      const batch = torch.fromTypedArray(padded.pixels, [1, 1, padded.height, padded.width])
      return inputOf(batch, [box as Box], { size, resize, oversample, channels: 3, device })
    })
    return use(torch.cat(pixels, 0))
  })
  return { result, warnings: read.map((image) => (image instanceof torch.Tensor ? [] : image.warnings)) }
}
