import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { loadTextModel } from '../../src/models/text/load.js'
import type { TextEncoder } from '../../src/peft/index.js'
import { type AdaptedTextModel, memoryKey } from '../../src/peft/index.js'
import * as torch from '../../src/torch/index.js'

type Tensor = torch.Tensor

// small matrices: more threads only wait for each other
torch.setNumThreads(1)

/** A case's folder; REFERENCE_CASES names another folder of cases, made by make_reference.py. */
export function referencePath(name: string): string {
  if (process.env.REFERENCE_CASES !== undefined) return `${process.env.REFERENCE_CASES}/${name}`
  return fileURLToPath(new URL(`../reference/${name}`, import.meta.url))
}

export function loadReferenceModel(name: string): Promise<TextEncoder> {
  return loadTextModel(`${referencePath(name)}/model`)
}

/** A reference case's tensors and tolerance. */
export function openCase(name: string): {
  tensors: Map<string, Tensor>
  rtol: number
  atol: number
  total: number
  trainable: number
} {
  using file = torch.openSafetensors(`${referencePath(name)}/io.safetensors`)
  const json = JSON.parse(readFileSync(`${referencePath(name)}/case.json`, 'utf8')) as {
    rtol: number
    atol: number
    total_parameters: number
    trainable_parameters: number
  }
  const tensors = new Map(file.names.map((each) => [each, file.tensor(each)]))
  return {
    tensors,
    rtol: json.rtol,
    atol: json.atol,
    total: json.total_parameters,
    trainable: json.trainable_parameters,
  }
}

/** The largest excess of |a - b| over atol + rtol |b|: at most 0 where they agree. */
export function excess(a: Tensor, b: Tensor, rtol: number, atol: number): number {
  if (a.shape.join() !== b.shape.join()) return Number.POSITIVE_INFINITY
  return torch.scope(() =>
    torch.noGrad(() => a.double().sub(b.double()).abs().sub(b.double().abs().mul(rtol).add(atol)).max().item()),
  )
}

/** The largest difference. */
export function difference(a: Tensor, b: Tensor): number {
  return torch.scope(() => torch.noGrad(() => a.double().sub(b.double()).abs().max().item()))
}

/** The state at the last real token of each row, which `extra` virtual tokens precede: [B, width]. */
export function lastToken(hidden: Tensor, mask: Tensor, extra: number): Tensor {
  const last = mask.sum(1).add(extra - 1)
  return hidden.gather(1, last.view([-1, 1, 1]).expand([-1, 1, hidden.shape[2]!])).squeeze(1)
}

/** The reference cases' loss. */
export function referenceLoss(value: Tensor): Tensor {
  return value.mul(torch.linspace(-1, 1, value.numel()).viewAs(value)).sum()
}

/** Gradients by the names that peft has in memory. */
export function gradients(adapted: AdaptedTextModel, headPrefix: string, name = 'default'): Map<string, Tensor | null> {
  const virtual = adapted.prompt_encoder.has(name)
  return new Map(
    Array.from(adapted.adapterParameters(name), ([path, parameter]) => [
      virtual ? `prompt_encoder.${name}.${path}` : memoryKey(headPrefix, path, name),
      parameter.grad,
    ]),
  )
}
