import type { ClassPrompt, Dataset } from '../sample.js'
import { CHEST_TEMPLATE, findingWords, isNoFinding } from './chest.js'

/*
 * What a model is asked about an image, in evaluation and in prompt tuning alike.
 */

/** A finding beside others: a cosine alone has no zero point, so it is asked for by what says it and what denies it. */
export interface AskedClass extends ClassPrompt {
  /** One for each of the prompts. Of a class among others none. */
  readonly negations?: readonly string[]
}

/** A class's prompt for one image: what is known of the image itself stands before it (EMBED), if anything. */
export const promptOf = (prefix: string | null, prompt: string): string =>
  prefix === null ? prompt : `${prefix} ${prompt}`

/**
 * Classes of which an image is of one.
 *
 * @throws RangeError where there are fewer than two
 */
export function askedClasses({ classes, kind }: Pick<Dataset, 'classes' | 'kind'>): readonly AskedClass[] {
  if (classes.length >= 2) return classes
  throw new RangeError(`labels: expected a data set with two classes or more, but '${kind}' has ${classes.length}`)
}

/**
 * Findings and their negations. A data set's own prompts are taken for what they name.
 *
 * @param names default: all but 'No Finding', whose negation would say nothing
 * @throws RangeError where a finding cannot be denied
 */
export function askedFindings(dataset: Dataset, names?: readonly string[]): AskedClass[] {
  const { findings, classes, kind, root } = dataset
  const asked = names ?? findings.filter((name) => !isNoFinding(name))
  if (asked.length === 0) {
    throw new RangeError(`labels: expected data with findings for 'multi', but ${kind} in '${root}' has none`)
  }
  return asked.map((name) => {
    if (isNoFinding(name)) {
      throw new RangeError(
        `findings: expected findings that can be denied, but received '${name}', which denies all others; leave it out`,
      )
    }
    const words = findingWords(name)
    const prompts = classes.find((each) => each.name === name)?.prompts ?? [`${CHEST_TEMPLATE} ${words}`]
    const without = prompts.find((prompt) => !prompt.toLowerCase().includes(words))
    if (without !== undefined) {
      throw new RangeError(
        `labels: expected prompts that name their finding, to negate it, but '${without}' has no '${words}'; use 'single', or other prompts`,
      )
    }
    return { name, prompts, negations: prompts.map((prompt) => prompt.toLowerCase().replace(words, `no ${words}`)) }
  })
}
