const OTHER: Readonly<Record<string, string>> = { left: 'right', right: 'left' }

/** A mammogram's text after its image was flipped: the words 'left' and 'right' change places, their case kept. */
export function swapSides(text: string): string {
  return text.replace(/\b(?:left|right)\b/gi, (word) => {
    const other = OTHER[word.toLowerCase()]!
    if (word === word.toUpperCase()) return other.toUpperCase()
    return word[0] === word[0]!.toUpperCase() ? other[0]!.toUpperCase() + other.slice(1) : other
  })
}
