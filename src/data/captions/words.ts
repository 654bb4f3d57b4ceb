/*
 * How the published code makes a caption of a text (datasets/chexpert_dataset.py, embed_dataset.py, create_path_2_sent_mapping): numbers
 * before a full stop are taken for the numbers of a list and dropped, everything but letters, digits and '_' separates words, words are lower
 * case, other characters than ASCII are dropped out of them.
 */

const ENUMERATION = /[0-9]+\./g
const WORD = /[\p{L}\p{N}_]+/gu
const BETWEEN_ASCII_WORDS = /[^a-z0-9_]+/g
const NOT_ASCII = /[^\p{ASCII}]/gu

/** The words of a text with a space between. */
export function words(text: string): string {
  const plain = text.replaceAll(ENUMERATION, ' ').toLowerCase()
  if (!/[^\p{ASCII}]/u.test(plain)) return plain.replaceAll(BETWEEN_ASCII_WORDS, ' ').trim()
  const found = plain.match(WORD) ?? []
  return found.flatMap((word) => word.replaceAll(NOT_ASCII, '') || []).join(' ')
}
