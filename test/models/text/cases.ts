import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as torch from '../../../src/torch/index.js'

/** Reference cases: see /shared/reference; another folder of them in CLEFT_CASES. */
export const casesFolder = process.env.CLEFT_CASES ?? fileURLToPath(new URL('../../reference', import.meta.url))

export interface Case {
  folder: string
  rtol: number
  atol: number
  tensor(name: string): torch.Tensor
  names: readonly string[]
}

export function openCase(name: string): Case {
  const folder = join(casesFolder, name)
  const { rtol, atol } = JSON.parse(readFileSync(join(folder, 'case.json'), 'utf8')) as { rtol: number; atol: number }
  const file = torch.openSafetensors(join(folder, 'io.safetensors'))
  return { folder, rtol, atol, tensor: (each) => file.tensor(each), names: file.names }
}

/** The largest |a - b| / (atol + rtol |b|): 1 or less is within the tolerance. */
export function excess(
  found: torch.Tensor,
  wanted: torch.Tensor,
  { rtol, atol }: { rtol: number; atol: number },
): number {
  return torch.scope(() => {
    if (found.shape.join() !== wanted.shape.join())
      throw new RangeError(`shapes differ: [${found.shape}] and [${wanted.shape}]`)
    return found.sub(wanted).abs().div(wanted.abs().mul(rtol).add(atol)).max().item()
  })
}

/** The largest difference over the largest value. */
export function relative(found: torch.Tensor, wanted: torch.Tensor): number {
  return torch.scope(() => found.sub(wanted).abs().max().item() / Math.max(wanted.abs().max().item(), 1e-6))
}

/** sum(out * linspace(-1, 1)), the loss of the cases. */
export function caseLoss(output: torch.Tensor): torch.Tensor {
  return output.mul(torch.linspace(-1, 1, output.numel()).view(output.shape)).sum()
}
