import type * as torch from '../../torch/index.js'
import type { ReferenceCase } from './case.js'
import type { Comparison } from './comparison.js'

/** A parameter's name without what stands before and inside it for the sake of adapters and heads. */
function plain(name: string): string {
  return name
    .replace(/^(base_model\.)?(model\.)*/, '')
    .replace(/^(transformer|bert|vision_model)\./, '')
    .replaceAll('.base_layer.', '.')
    .replace(/\.default(?=\.|$)/, '')
}

/** Holds the gradients of a module against a case's, by the checkpoint's names. */
export function compareGradients(
  comparison: Comparison,
  reference: ReferenceCase,
  module: torch.nn.Module,
  prefix = '',
): void {
  const own = new Map(module.namedParameters().map(([name, parameter]) => [plain(name), parameter]))
  for (const name of reference.names('grad.')) {
    if (!name.startsWith(prefix)) continue
    const parameter = own.get(plain(name.slice(prefix.length)))
    if (parameter === undefined) comparison.problems.push(`${name}: the model has no such parameter`)
    else comparison.gradient(name, parameter.grad, reference.tensor(`grad.${name}`))
  }
}
