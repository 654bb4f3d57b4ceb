/*
 * ResNet: He et al. 2015 (arXiv 1512.03385), of basic blocks (18 and 34 layers) or bottlenecks with the stride in the 3x3
 * convolution (50 layers and more, v1.5).
 *
 * After torchvision/models/resnet.py, whose state-dict names these are; `transformersLayout` leads from the names of
 * transformers' models/resnet/modeling_resnet.py to them.
 */
import * as torch from '../../torch/index.js'
import type { Config } from '../config.js'
import type { ModelLoader } from '../registry.js'
import type { RenameTable } from '../renames.js'
import { ImageEncoder, type ImageFeatures, type ImageForwardOptions, Tokens } from './encoder.js'

const { nn } = torch
type Tensor = torch.Tensor

export interface ResNetConfig {
  block: 'basic' | 'bottleneck'
  /** Blocks of each of the four stages: [3, 4, 6, 3] for ResNet-50. */
  depths: readonly number[]
  /** Channels after the first convolution. */
  width: number
  /** Channels after each stage: [256, 512, 1024, 2048] for ResNet-50. */
  widths: readonly number[]
  channels: number
}

/** A bottleneck is so much narrower than what goes in and comes out. */
const EXPANSION = 4

/** Reads config.json of model_type resnet: with `layout: "torchvision"`, depths and width; or transformers' own. */
export function readResNetConfig(config: Config): ResNetConfig {
  config.only('layer_type', ['bottleneck', 'basic'])
  config.only('hidden_act', ['relu'])
  config.only('downsample_in_first_stage', [false])
  config.only('downsample_in_bottleneck', [false])
  config.only('layout', ['torchvision', 'transformers'])
  config.ignore('out_features', 'out_indices', 'stage_names', 'image_size')
  const block = config.string('layer_type', 'bottleneck') as ResNetConfig['block']
  const depths = config.counts('depths', [3, 4, 6, 3])
  const width = config.count(config.has('width') ? 'width' : 'embedding_size', 64)
  const expansion = block === 'basic' ? 1 : EXPANSION
  const usual = [0, 1, 2, 3].map((stage) => expansion * (width << stage))
  const widths = config.counts('hidden_sizes', usual)
  if (widths.length !== 4 || depths.length !== 4 || widths.some((each) => each % expansion !== 0)) {
    throw new RangeError(
      `resnet: expected four stages, of widths that ${expansion} divides, but config.json says depths ${depths} and hidden_sizes ${widths}`,
    )
  }
  return { block, depths, width, widths, channels: config.count('num_channels', 3) }
}

/** The input as a block's output has it, where they differ in size. */
function shortcut(inChannels: number, out: number, stride: number): torch.nn.Sequential | null {
  if (stride === 1 && inChannels === out) return null
  return new nn.Sequential(new nn.Conv2d(inChannels, out, 1, { stride, bias: false }), new nn.BatchNorm2d(out))
}

class BasicBlock extends nn.Module {
  conv1: torch.nn.Conv2d
  bn1: torch.nn.BatchNorm2d
  conv2: torch.nn.Conv2d
  bn2: torch.nn.BatchNorm2d
  downsample: torch.nn.Sequential | null

  constructor(inChannels: number, out: number, stride: number) {
    super()
    this.conv1 = new nn.Conv2d(inChannels, out, 3, { stride, padding: 1, bias: false })
    this.bn1 = new nn.BatchNorm2d(out)
    this.conv2 = new nn.Conv2d(out, out, 3, { padding: 1, bias: false })
    this.bn2 = new nn.BatchNorm2d(out)
    this.downsample = shortcut(inChannels, out, stride)
  }

  /** [B, C, H, W] to [B, out, H / stride, W / stride]. */
  forward(x: Tensor): Tensor {
    const first = this.bn1.forward(this.conv1.forward(x)).relu()
    const second = this.bn2.forward(this.conv2.forward(first))
    return second.add(this.downsample?.forward(x) ?? x).relu()
  }
}

class Bottleneck extends nn.Module {
  conv1: torch.nn.Conv2d
  bn1: torch.nn.BatchNorm2d
  conv2: torch.nn.Conv2d
  bn2: torch.nn.BatchNorm2d
  conv3: torch.nn.Conv2d
  bn3: torch.nn.BatchNorm2d
  downsample: torch.nn.Sequential | null

  constructor(inChannels: number, out: number, stride: number) {
    super()
    const width = out / EXPANSION
    const bias = false
    this.conv1 = new nn.Conv2d(inChannels, width, 1, { bias })
    this.bn1 = new nn.BatchNorm2d(width)
    this.conv2 = new nn.Conv2d(width, width, 3, { stride, padding: 1, bias })
    this.bn2 = new nn.BatchNorm2d(width)
    this.conv3 = new nn.Conv2d(width, out, 1, { bias })
    this.bn3 = new nn.BatchNorm2d(out)
    this.downsample = shortcut(inChannels, out, stride)
  }

  /** [B, C, H, W] to [B, out, H / stride, W / stride]. */
  forward(x: Tensor): Tensor {
    const narrow = this.bn1.forward(this.conv1.forward(x)).relu()
    const spread = this.bn2.forward(this.conv2.forward(narrow)).relu()
    const wide = this.bn3.forward(this.conv3.forward(spread))
    return wide.add(this.downsample?.forward(x) ?? x).relu()
  }
}

/** ResNet without its classifier. Its patches are the positions of the last map; there is no class token and no norm. */
export class ResNet extends ImageEncoder {
  conv1: torch.nn.Conv2d
  bn1: torch.nn.BatchNorm2d
  layer1: torch.nn.Sequential
  layer2: torch.nn.Sequential
  layer3: torch.nn.Sequential
  layer4: torch.nn.Sequential
  override readonly modelType = 'resnet'
  override readonly featureWidth: number
  override readonly imageSize = [224, 224] as const
  override readonly patchSize = [32, 32] as const
  override readonly channels: number
  override readonly takesAnySize = true
  override readonly hasClassToken = false

  constructor({ block, depths, width, widths, channels }: ResNetConfig) {
    super()
    this.channels = channels
    this.featureWidth = widths[3]!
    this.conv1 = new nn.Conv2d(channels, width, 7, { stride: 2, padding: 3, bias: false })
    this.bn1 = new nn.BatchNorm2d(width)
    const stage = (index: number): torch.nn.Sequential => {
      const Block = block === 'basic' ? BasicBlock : Bottleneck
      const out = widths[index]!
      const before = index === 0 ? width : widths[index - 1]!
      const blocks = Array.from({ length: depths[index]! }, (_, k) =>
        k === 0 ? new Block(before, out, index === 0 ? 1 : 2) : new Block(out, out, 1),
      )
      return new nn.Sequential(...blocks)
    }
    this.layer1 = stage(0)
    this.layer2 = stage(1)
    this.layer3 = stage(2)
    this.layer4 = stage(3)
  }

  override forward(pixels: Tensor, options: ImageForwardOptions = {}): ImageFeatures {
    this.checkPixels(pixels)
    this.refuseMasking(options)
    if (options.attentions) {
      throw new RangeError(
        'ResNet: expected a transformer where attentions are asked for, but this is a convolutional network',
      )
    }
    const { checkpoint = this.checkpointing } = options
    const isCheckpointed = checkpoint && torch.isGradEnabled()
    // [B, 3, H, W] to [B, width, H / 4, W / 4]
    const stem = this.bn1.forward(this.conv1.forward(pixels.to(this.conv1.weight.dtype))).relu()
    let map = torch.maxPool2d(stem, 3, 2, 1)
    const states: Tensor[] = [map]
    for (const layer of [this.layer1, this.layer2, this.layer3, this.layer4]) {
      for (const block of layer) {
        // running statistics would count a batch twice
        map =
          isCheckpointed && !this.training
            ? torch.autograd.checkpoint((x: Tensor) => block.forward(x), [map])
            : block.forward(map)
      }
      states.push(map)
    }
    // [B, C, h, w] to [B, h * w, C]
    const tokens = new Tokens(map.flatten(2).transpose(1, 2), 0, 0)
    return {
      prenorm: tokens,
      normed: tokens,
      pooled: map.mean([2, 3]),
      hidden: map,
      grid: [map.size(2), map.size(3)],
      keptPatches: null,
      hiddenStates: options.hiddenStates ? states : null,
      attentions: null,
    }
  }
}

const stages = [0, 1, 2, 3]

/** From transformers' names to torchvision's. */
export const transformersLayout: RenameTable = [
  { from: 'embedder.embedder.convolution.{p}', to: 'conv1.{p}' },
  { from: 'embedder.embedder.normalization.{p}', to: 'bn1.{p}' },
  ...stages.flatMap((stage) => {
    const from = `encoder.stages.${stage}.layers.{l}`
    const to = `layer${stage + 1}.{l}`
    return [
      { from: `${from}.shortcut.convolution.{p}`, to: `${to}.downsample.0.{p}` },
      { from: `${from}.shortcut.normalization.{p}`, to: `${to}.downsample.1.{p}` },
      ...[0, 1, 2].flatMap((k) => [
        { from: `${from}.layer.${k}.convolution.{p}`, to: `${to}.conv${k + 1}.{p}` },
        { from: `${from}.layer.${k}.normalization.{p}`, to: `${to}.bn${k + 1}.{p}` },
      ]),
    ]
  }),
]

const wrappers: RenameTable = [
  { from: 'resnet.{rest*}', to: '{rest}' },
  { from: 'fc.{p}', to: null },
  { from: 'classifier.{rest*}', to: null },
]

export const resnetLoader: ModelLoader<ResNet> = {
  build: (config) => new ResNet(readResNetConfig(config)),
  rename: () => [wrappers, transformersLayout],
  // files from before PyTorch 0.4.1 do not count batches
  optional: {
    'bn1.num_batches_tracked': 0,
    '{layer}.{i}.{bn}.num_batches_tracked': 0,
    '{layer}.{i}.downsample.1.num_batches_tracked': 0,
  },
}
