import type { Module } from './module.js'

function indent(text: string): string {
  return text.replaceAll('\n', '\n  ')
}

function describeValue(value: unknown): string | null {
  if (typeof value === 'string') return `'${value}'`
  if (typeof value === 'number' || typeof value === 'boolean') return String(value)
  return Array.isArray(value) && value.every((item) => typeof item === 'number') ? `[${value.join(', ')}]` : null
}

/** The plain fields of a module, which say how it was made: inFeatures=10, outFeatures=32. */
export function describeFields(module: Module): string {
  return Object.entries(module)
    .map(([name, value]) => [name, name === 'training' ? null : describeValue(value)] as const)
    .flatMap(([name, text]) => (text === null ? [] : [`${name}=${text}`]))
    .join(', ')
}

/** A module and its parts like PyTorch's repr; equal items of a list that follow each other on one line. */
export function describeModule(module: Module): string {
  const name = module.constructor.name
  const extra = module.extraRepr()
  const children = module.namedChildren().map(([label, child]) => ({ label, text: describeModule(child) }))
  if (children.length === 0) return `${name}(${extra})`
  const lines: string[] = []
  for (let start = 0; start < children.length; ) {
    const { label, text } = children[start]!
    let end = start + 1
    // only numbered items: named ones are worth their names
    while (/^\d+$/.test(label) && children[end]?.text === text) end += 1
    const count = end - start
    lines.push(
      count > 1 ? `(${label}-${children[end - 1]!.label}): ${count} x ${indent(text)}` : `(${label}): ${indent(text)}`,
    )
    start = end
  }
  return `${name}(\n  ${[...(extra === '' ? [] : [extra]), ...lines].join('\n  ')}\n)`
}
