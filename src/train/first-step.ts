import * as torch from '../torch/index.js'

/** How many names an error lists. */
const SHOWN = 8

/**
 * After the first backward(): every trainable tensor must have a finite gradient. In the published recipe LoRA very likely
 * gets none (re-entrant checkpointing over an input without gradient), and nothing says so.
 *
 * A gradient that is zero throughout is what some adapters begin with (LoRA's A, where B is zero), and is fine.
 *
 * @param options.isScaled in float16 the first steps may overflow until the loss' factor fits, and are left out for that
 * @throws Error that names the tensors
 */
export function checkFirstGradients(model: torch.nn.Module, options: { isScaled?: boolean } = {}): void {
  // a gradient that was looked at lives as long as the handle to it
  torch.scope(() => check(model, options))
}

function check(model: torch.nn.Module, { isScaled = false }: { isScaled?: boolean }): void {
  const trained = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
  const without = trained.filter(([, { grad }]) => grad === null).map(([name]) => name)
  const broken = (isScaled ? [] : trained)
    .filter(([, { grad }]) => grad !== null && !grad.isfinite().all().item())
    .map(([name]) => name)
  const list = (names: readonly string[]) =>
    `${names.slice(0, SHOWN).join(', ')}${names.length > SHOWN ? ` and ${names.length - SHOWN} more` : ''}`
  if (without.length > 0) {
    throw new Error(
      `expected each of ${trained.length} trainable tensors to have a gradient after the first step, but ${without.length} have none: ${list(without)}; freeze what is not used (freeze: ['...'])`,
    )
  }
  if (broken.length > 0) {
    throw new Error(
      `expected finite gradients in the first step, but those of ${broken.length} tensors are not: ${list(broken)}; check the images and the starting weights`,
    )
  }
}
