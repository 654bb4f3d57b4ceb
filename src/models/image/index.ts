/*
 * Image encoders.
 */
import { fromPretrained, type PretrainedOptions } from '../pretrained.js'
import { registerModel } from '../registry.js'
import { clipVitLoader } from './clip-vit.js'
import { dinov2Loader } from './dinov2.js'
import { ImageEncoder } from './encoder.js'
import { resnetLoader } from './resnet.js'
import { swinLoader } from './swin.js'
import { vitLoader } from './vit.js'

registerModel('dinov2', dinov2Loader)
registerModel('dinov2_with_registers', dinov2Loader)
registerModel('vit', vitLoader)
registerModel('vit_mae', vitLoader)
registerModel('clip_vision_model', clipVitLoader)
registerModel('clip', clipVitLoader)
registerModel('resnet', resnetLoader)
registerModel('swin', swinLoader)

/** {@link fromPretrained} of what must be an image encoder. */
export async function imageEncoderFromPretrained(name: string, options: PretrainedOptions = {}): Promise<ImageEncoder> {
  const model = await fromPretrained(name, options)
  if (model instanceof ImageEncoder) return model
  model.dispose()
  throw new TypeError(`expected '${name}' to be an image encoder, but it is a ${model.constructor.name}`)
}

export { ClipVit } from './clip-vit.js'
export { Dinov2, dinov2Renames, hubLayout as dinov2HubLayout } from './dinov2.js'
export {
  type Block,
  dropPatches,
  ImageEncoder,
  type ImageFeatures,
  type ImageForwardOptions,
  Tokens,
} from './encoder.js'
export { type PositionMethod, resizePositions } from './positions.js'
export { ResNet } from './resnet.js'
export { Swin } from './swin.js'
export { Vit } from './vit.js'
