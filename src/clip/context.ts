import type { TextTokenizer } from '../models/index.js'
import { AdaptedModel, type AdaptedTextModel, addAdapter } from '../peft/index.js'
import * as torch from '../torch/index.js'
import type { TextTower } from './text-tower.js'

/*
 * A learned context: vectors before the words of a text, in place of a template (Du et al., MICCAI 2024, section 2.3). To
 * the language model it is a prompt adapter (peft's prompt tuning) beside whatever adapter it has, and is saved as one.
 */

/** The adapter's name. */
const CONTEXT = 'context'

/** What the vectors start from, and what they stand for: the space at its end is part of it. */
export const CONTEXT_TEXT = 'this is a chest x ray of a patient with '

const adaptedText = ({ text }: TextTower): AdaptedModel | null => (text instanceof AdaptedModel ? text : null)

/** How many vectors a model has learned to put before a text; 0 where it has none. */
export function contextLength(model: TextTower): number {
  const text = adaptedText(model)
  if (text === null || !text.active.includes(CONTEXT)) return 0
  const { config } = text.adapter(CONTEXT)
  return config.kind === 'prompt' ? config.numVirtualTokens : 0
}

/**
 * A text as a model with a learned context reads it: without the template that the context stands for, and with a space
 * before it, as words within a sentence have for a GPT-2 tokenizer.
 */
export function wordsAfterContext(text: string): string {
  return ` ${text.startsWith(CONTEXT_TEXT) ? text.slice(CONTEXT_TEXT.length) : text.trimStart()}`
}

export interface ContextOptions {
  /** Vectors. */
  length: number
  /** 'caption': the embeddings of {@link CONTEXT_TEXT}, over and over; 'random': N(0, 1). */
  init: 'caption' | 'random'
}

/**
 * Puts a context before every text of a model.
 *
 * @throws RangeError where the language model is not frozen below adapters, has virtual tokens already, or no room for more
 */
export async function addContext(
  model: TextTower,
  tokenizer: TextTokenizer,
  { length, init }: ContextOptions,
): Promise<void> {
  const text = adaptedText(model)
  if (text === null) {
    throw new RangeError(
      'from: expected a model whose language model is frozen below adapters, to put a context before its texts, but it was trained as a whole',
    )
  }
  const { active, prompt_encoder } = text
  const virtual = active.find((name) => prompt_encoder.has(name))
  if (virtual === CONTEXT) {
    throw new RangeError(
      `from: expected a checkpoint without a learned context, but this one has learned ${contextLength(model)} vectors already; begin with the checkpoint of pre-training that they were learned for`,
    )
  }
  if (virtual !== undefined) {
    throw new RangeError(
      `from: expected a model without virtual tokens, but its adapter '${virtual}' puts some before every text, where the context would be`,
    )
  }
  const room = (text as AdaptedTextModel).maximumPositions - length
  if (room < 2) {
    throw new RangeError(
      `contextLength: expected room for words after it among the ${room + length} positions of the language model, but received ${length}`,
    )
  }
  const [ids] = init === 'caption' ? await tokenizer.encode([CONTEXT_TEXT]) : [undefined]
  torch.scope(() => {
    const adapted = addAdapter(
      text,
      {
        kind: 'prompt',
        numVirtualTokens: length,
        ...(ids === undefined ? { init: 'random' } : { init: 'text', initTokens: ids, initText: CONTEXT_TEXT }),
      },
      CONTEXT,
    )
    adapted.setAdapter([...active, CONTEXT])
  })
  // One less than without, as published (63 of 64). A text that fills all positions has none after it for 'first-pad'.
  model.encoding.maximumLength = Math.min(model.encoding.maximumLength ?? room, room) - 1
}

/** The vectors: [length, width]. @throws RangeError where there is no context */
export function contextVectors(model: TextTower): torch.nn.Parameter {
  const found = adaptedText(model)?.adapterParameters(CONTEXT).values().next().value
  if (found === undefined) throw new RangeError('expected a model with a learned context, but it has none')
  return found
}
