import { fromTypedArray, saveSafetensors, scope, type Tensor } from '../../torch/index.js'
import { prepareImage, saveImage, type Windowing } from '../images/index.js'
import { inputOf, type Resize } from './input.js'
import { drawAugmentation } from './parameters.js'

export interface InputStageOptions {
  readonly windowing?: Windowing
  /** Side of the padded square that it is made from. Default: 256. */
  readonly size?: number
  /** Default: 'published'. */
  readonly resize?: Resize
  /** The seed of a training augmentation: that of image 0 in epoch 0. Default: none. */
  readonly augment?: number
}

/**
 * One image as an image encoder gets it: float32 [224, 224] from -1 to 1, with what the file has to be warned of. The
 * tensor is the caller's.
 *
 * @throws ImageError as readImage
 */
export async function inputStage(
  source: string | Uint8Array,
  { windowing, size, resize, augment }: InputStageOptions = {},
): Promise<{ image: Tensor; warnings: readonly string[] }> {
  const { padded, box, warnings } = await prepareImage(source, { windowing, size })
  const augmentations = augment === undefined ? undefined : [drawAugmentation(0, { seed: augment, epoch: 0 })]
  const image = scope(() => {
    const batch = fromTypedArray(padded.pixels, [1, 1, padded.height, padded.width])
    return inputOf(batch, [box], { resize, augmentations }).view([224, 224])
  })
  return { image, warnings }
}

/** Writes what {@link inputStage} gave: a safetensors file (tensor `image`), or a PNG in which -1 is black and 1 white. */
export async function saveInput(image: Tensor, path: string): Promise<void> {
  if (path.toLowerCase().endsWith('.safetensors')) {
    saveSafetensors({ image }, path)
    return
  }
  const [height = 0, width = 0] = image.shape
  const levels = scope(() => image.add(1).mul(127.5).round().clamp(0, 255).to('uint8').toTypedArray())
  await saveImage({ width, height, pixels: levels as Uint8Array }, path)
}
