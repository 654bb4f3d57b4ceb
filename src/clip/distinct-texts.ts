import type { TokenSequences } from './text-tower.js'

/** A class by the token ids of its texts, as the model reads them. */
export interface ClassTokens {
  readonly name: string
  readonly tokens: TokenSequences
}

/**
 * Refuses classes that a model cannot tell apart, because a text of one is that of another once both are cut to the most
 * tokens that it reads: their scores would be equal, and say nothing.
 *
 * @throws RangeError that names them
 */
export function checkDistinct(classes: readonly ClassTokens[], maximumLength: number | undefined): void {
  const owners = new Map<string, string>()
  const alike = new Set<string>()
  for (const { name, tokens } of classes) {
    for (const ids of tokens) {
      const key = ids.join()
      const owner = owners.get(key)
      if (owner === undefined) owners.set(key, name)
      else if (owner !== name) alike.add(owner).add(name)
    }
  }
  if (alike.size === 0) return
  const names = [...alike].map((name) => `'${name}'`).join(', ')
  throw new RangeError(
    `expected texts that tell classes apart within the ${maximumLength ?? 'most'} tokens that the model reads, but those of ${names} are the same there; give shorter ones (data.prompts, data.captions.style), or a model that was pre-trained with a larger text.maximumLength`,
  )
}
