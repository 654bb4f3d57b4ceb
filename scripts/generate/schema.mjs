// Reads the text of an operator's schema: `aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor`.

/**
 * @typedef {{ name: string, type: string, keywordOnly: boolean, hasDefault: boolean, isOut: boolean }} SchemaArgument
 * @typedef {{ namespace: string, name: string, overload: string, text: string, arguments: SchemaArgument[],
 *   returns: { name: string, type: string }[] }} Schema
 */

/** Splits at commas that are outside of brackets and strings. @param {string} text */
function splitTop(text) {
  const parts = []
  let depth = 0
  let quoted = false
  let start = 0
  for (let index = 0; index < text.length; index += 1) {
    const letter = text[index]
    if (letter === '"') quoted = !quoted
    if (quoted) continue
    if (letter === '(' || letter === '[') depth += 1
    if (letter === ')' || letter === ']') depth -= 1
    if (letter === ',' && depth === 0) {
      parts.push(text.slice(start, index).trim())
      start = index + 1
    }
  }
  const last = text.slice(start).trim()
  if (last !== '') parts.push(last)
  return parts
}

/** Where the bracket that opens at `open` closes. @param {string} text @param {number} open */
function closing(text, open) {
  let depth = 0
  let quoted = false
  for (let index = open; index < text.length; index += 1) {
    if (text[index] === '"') quoted = !quoted
    if (quoted) continue
    if (text[index] === '(') depth += 1
    if (text[index] === ')') {
      depth -= 1
      if (depth === 0) return index
    }
  }
  throw new Error(`expected brackets that close in ${text}`)
}

/** `Tensor(a!) self` without what it says of aliases. @param {string} text */
function withoutAlias(text) {
  return text.replace(/\([^()]*\)(?=\??\[?|\s)/g, (part) => (/^\([a-z*|! >-]+\)$/.test(part) ? '' : part))
}

/** @param {string} text @returns {Schema} */
export function parseSchema(text) {
  const open = text.indexOf('(')
  const end = closing(text, open)
  const [namespace, full] = text.slice(0, open).split('::')
  const dot = full.indexOf('.')
  let keywordOnly = false
  const list = []
  for (const part of splitTop(text.slice(open + 1, end))) {
    if (part === '*') {
      keywordOnly = true
      continue
    }
    const equals = part.indexOf('=')
    const declaration = equals < 0 ? part : part.slice(0, equals)
    const space = declaration.trim().lastIndexOf(' ')
    const type = declaration.slice(0, space).trim()
    list.push({
      name: declaration.slice(space + 1).trim(),
      type: withoutAlias(type),
      keywordOnly,
      hasDefault: equals >= 0,
      isOut: keywordOnly && type.includes('!'),
    })
  }
  const arrow = text.slice(text.indexOf('->', end) + 2).trim()
  const inside = arrow.startsWith('(') && closing(arrow, 0) === arrow.length - 1 ? arrow.slice(1, -1) : arrow
  const returns = splitTop(inside).map((part) => {
    const space = part.lastIndexOf(' ')
    const named = space >= 0 && !part.slice(space).includes(')')
    return {
      name: named ? part.slice(space + 1) : '',
      type: withoutAlias(named ? part.slice(0, space) : part),
      inPlace: (named ? part.slice(0, space) : part).includes('!'),
    }
  })
  return {
    namespace,
    name: dot < 0 ? full : full.slice(0, dot),
    overload: dot < 0 ? '' : full.slice(dot + 1),
    text,
    arguments: list,
    returns,
  }
}
