import * as torch from '../../torch/index.js'
import { tensorsOf, type Visibility, visibilityOf, withTensors } from './attention.js'
import type { InputSizes, KeyValue, TextEncoder, TextInput, TextOutput } from './encoder.js'

type Tensor = torch.Tensor

/** What a layer is given. */
export interface LayerInput {
  /** [B, S, width] */
  x: Tensor
  visibility: Visibility
  prefix: KeyValue | null
  /** int64 [N]: the tokens whose output is asked for (the row is one then), or null for all. */
  wanted: Tensor | null
  wantWeights: boolean
  /** Those of the stack. */
  extra: readonly Tensor[]
}

export interface Stack<Layer> {
  layers: Iterable<Layer>
  /** The layer's output, and its attention where asked for. */
  run(layer: Layer, input: LayerInput): [Tensor, Tensor | null]
  /** The last norm. */
  finish(x: Tensor): Tensor
  /** More tensors that all layers read. */
  extra: readonly Tensor[]
}

/**
 * Runs embeddings [B, S, width] through a stack of layers. What a layer makes on its way is freed behind it, but for what
 * backward() needs; with checkpointing that is the layer's input alone.
 */
export function runLayers<Layer>(
  model: TextEncoder,
  name: string,
  first: Tensor,
  input: TextInput,
  sizes: InputSizes,
  stack: Stack<Layer>,
): TextOutput {
  const { outputTokens, outputHiddenStates = false, outputAttentions: wantWeights = false } = input
  if (outputTokens !== undefined && (outputHiddenStates || wantWeights)) {
    throw new TypeError(
      `${name}: expected outputTokens alone, but hidden states or attentions are asked for too; take the tokens from them`,
    )
  }
  const checkpointing = model.running.checkpointing && torch.isGradEnabled()
  if (checkpointing && wantWeights) {
    throw new TypeError(
      `${name}: expected outputAttentions without checkpointing, which does not keep them; switch running.checkpointing off`,
    )
  }
  const visibility = visibilityOf(name, input, sizes, model.seesRight, first)
  const hiddenStates = outputHiddenStates ? [first] : null
  const attentions: Tensor[] | null = wantWeights ? [] : null
  const layers = [...stack.layers]
  // in one row the last layer can leave out what nobody asks for; its keys and values are of all tokens
  const isOneRow = outputTokens !== undefined && sizes.batch === 1
  let x = first
  for (const [index, layer] of layers.entries()) {
    const prefix = input.prefix?.[index] ?? null
    const wanted = isOneRow && index === layers.length - 1 ? outputTokens : null
    let weights: Tensor | null = null
    if (checkpointing) {
      x = runAgain(
        x,
        { visibility, prefix, wanted, wantWeights, extra: stack.extra },
        (given) => stack.run(layer, given)[0],
      )
    } else {
      const given = { x, visibility, prefix, wanted, wantWeights, extra: stack.extra }
      ;[x, weights] = torch.scope(() => stack.run(layer, given))
    }
    if (weights !== null) attentions?.push(weights)
    if (index < layers.length - 1) hiddenStates?.push(x)
  }
  if (outputTokens !== undefined) {
    // [1, N, D] to [N, D]; or [B, S, D] to [B S, D] and N rows of it
    x = isOneRow ? x.squeeze(0) : x.flatten(0, 1).indexSelect(0, outputTokens)
  }
  const lastHidden = stack.finish(x)
  hiddenStates?.push(lastHidden)
  return { lastHidden, hiddenStates, attentions, pooled: null }
}

/**
 * Runs a layer without keeping what backward() needs. Every tensor that it reads goes through checkpoint(): when backward()
 * runs the layer again, the scope in which they were made may have ended, and their gradients are found that way too.
 */
function runAgain(
  x: Tensor,
  { visibility, prefix, wanted, ...rest }: Omit<LayerInput, 'x'>,
  run: (input: LayerInput) => Tensor,
): Tensor {
  const fixed = tensorsOf(visibility)
  const given = [
    x,
    ...(prefix === null ? [] : [prefix.key, prefix.value]),
    ...fixed,
    ...rest.extra,
    ...(wanted === null ? [] : [wanted]),
  ]
  return torch.autograd.checkpoint((...inputs: Tensor[]) => {
    let next = 0
    const take = (): Tensor => inputs[next++] as Tensor
    const again = take()
    const keyValue = prefix === null ? null : { key: take(), value: take() }
    const seen = withTensors(visibility, fixed.map(take))
    const extra = rest.extra.map(take)
    return run({
      ...rest,
      x: again,
      prefix: keyValue,
      visibility: seen,
      extra,
      wanted: wanted === null ? null : take(),
    })
  }, given)
}
