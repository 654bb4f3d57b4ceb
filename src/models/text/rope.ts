/*
 * Rotary positions: Su et al. 2021, RoFormer, arXiv 2104.09864; in the half-split order of LLaMA. Scaling: linear (Chen et
 * al. 2023, arXiv 2306.15595), YaRN (Peng et al. 2023, arXiv 2309.00071), Llama 3 (arXiv 2407.21783), as transformers'
 * modeling_rope_utils.py computes them.
 */
import * as torch from '../../torch/index.js'
import { Config } from '../config.js'

type Tensor = torch.Tensor

export interface Rope {
  /** The angle of a step, for each pair of features. */
  frequencies: Float32Array
  /** A factor on cosines and sines. */
  scale: number
}

/** Reads rope_parameters (transformers 5), or rope_theta and rope_scaling (4). */
export function readRope(config: Config, headWidth: number, maximumPositions: number): Rope {
  const name = ['rope_parameters', 'rope_scaling'].find((each) => config.has(each))
  config.ignore('rope_parameters', 'rope_scaling')
  const rope = name === undefined ? new Config({}, config.logger, config.path) : config.part(name)
  const base = rope.number('rope_theta', config.number('rope_theta', 10000))
  // rope_scaling says type in older files
  const type = rope.string('rope_type', rope.string('type', 'default'))
  rope.only('partial_rotary_factor', [1])
  const plain = frequenciesOf(base, headWidth)
  const original = (): number => rope.count('original_max_position_embeddings', maximumPositions)
  switch (type) {
    case 'default':
    // beyond the trained length alone, which is refused here
    case 'dynamic':
      return { frequencies: plain, scale: 1 }
    case 'linear': {
      const factor = rope.number('factor')
      return { frequencies: plain.map((each) => each / factor), scale: 1 }
    }
    case 'llama3': {
      const factor = rope.number('factor')
      const low = rope.number('low_freq_factor')
      const high = rope.number('high_freq_factor')
      return { frequencies: plain.map((each) => llama3Frequency(each, factor, low, high, original())), scale: 1 }
    }
    case 'yarn':
      return yarn(rope, plain, base, headWidth, original(), maximumPositions)
    default:
      throw new RangeError(
        `${rope.path}: expected rope_type default, linear, dynamic, llama3 or yarn, but received '${type}', which is not supported`,
      )
  }
}

/** base^(-2 i / headWidth) in float32, step by step as PyTorch does, since an angle is this times a position. */
function frequenciesOf(base: number, headWidth: number): Float32Array {
  return torch.scope(() => {
    const exponents = torch.arange(0, headWidth, 2, { dtype: 'float32' }).div(headWidth)
    return torch.full([], base, { dtype: 'float32' }).pow(exponents).reciprocal().toTypedArray() as Float32Array
  })
}

function llama3Frequency(frequency: number, factor: number, low: number, high: number, original: number): number {
  const wavelength = (2 * Math.PI) / frequency
  if (wavelength > original / low) return frequency / factor
  if (wavelength < original / high) return frequency
  const smooth = (original / wavelength - low) / (high - low)
  return ((1 - smooth) * frequency) / factor + smooth * frequency
}

function yarn(
  rope: Config,
  plain: Float32Array,
  base: number,
  headWidth: number,
  original: number,
  maximumPositions: number,
): Rope {
  const factor = rope.number('factor', maximumPositions / original)
  const magnitude = (scale: number, by = 1): number => (scale <= 1 ? 1 : 0.1 * by * Math.log(scale) + 1)
  const mscale = rope.number('mscale', 0)
  const mscaleAll = rope.number('mscale_all_dim', 0)
  const usual =
    mscale !== 0 && mscaleAll !== 0 ? magnitude(factor, mscale) / magnitude(factor, mscaleAll) : magnitude(factor)
  const dimensionOf = (rotations: number): number =>
    (headWidth * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(base))
  const whole = rope.boolean('truncate', true)
  const first = dimensionOf(rope.number('beta_fast', 32))
  const last = dimensionOf(rope.number('beta_slow', 1))
  const low = Math.max(whole ? Math.floor(first) : first, 0)
  const end = Math.min(whole ? Math.ceil(last) : last, headWidth - 1)
  const high = end === low ? end + 0.001 : end
  const frequencies = plain.map((each, index) => {
    const ramp = Math.min(1, Math.max(0, (index - low) / (high - low)))
    return (each / factor) * ramp + each * (1 - ramp)
  })
  return { frequencies, scale: rope.number('attention_factor', usual) }
}

/** Cosines and signed sines of positions [B or 1, S], each [B or 1, S, 1, headWidth]. */
export function rotations(
  { frequencies, scale }: Rope,
  positions: Tensor,
  dtype: torch.DType,
): [cosine: Tensor, sine: Tensor] {
  return torch.noGrad(() =>
    torch.scope(() => {
      const each = torch.fromTypedArray(frequencies, [frequencies.length], { device: positions.device as torch.Device })
      // [B, S, 1] x [headWidth / 2]
      const angles = positions.unsqueeze(-1).to('float32').mul(each)
      const cosine = angles.cos().mul(scale)
      const sine = angles.sin().mul(scale)
      const finish = (first: Tensor, second: Tensor): Tensor => torch.cat([first, second], -1).unsqueeze(2).to(dtype)
      return [finish(cosine, cosine), finish(sine.neg(), sine)]
    }),
  )
}

/** Turns queries or keys [B, S, H, headWidth]: feature i goes with feature i + headWidth / 2. */
export function rotate(x: Tensor, cosine: Tensor, sine: Tensor): Tensor {
  const half = (x.shape[3] ?? 0) / 2
  // (x1, x2) cos + (-x2, x1) sin; the sign is in the sine
  return x.mul(cosine).addcmul(x.roll([half], [-1]), sine)
}
