// Writes src/torch/ops.generated.ts from the schemas of the loaded libtorch: types for TypeScript, and for each public
// name the overloads behind it in the order in which they are tried.
import { hiddenNames, hiddenOverloads, unsafeNames } from './hidden.mjs'
import { parseSchema } from './schema.mjs'

/** Methods that src/torch/tensor.ts writes by hand. */
const handwrittenMethods = new Set([
  'shape',
  'size',
  'dtype',
  'device',
  'layout',
  'ndim',
  'dim',
  'numel',
  'nbytes',
  'elementSize',
  'stride',
  'storageOffset',
  'item',
  'toArray',
  'at',
  'setAt',
  'to',
  'cpu',
  'cuda',
  'float',
  'double',
  'half',
  'bfloat16',
  'long',
  'int',
  'bool',
  'T',
  'mT',
  'grad',
  'requiresGrad',
  'requiresGrad_',
  'isLeaf',
  'backward',
  'data',
  'registerHook',
  'dispose',
  'toString',
  'where',
  'retainGrad',
  'isPinned',
  'isSame',
])

/** Namespaces of PyTorch that ATen spells as prefixes. */
const namespaces = ['linalg', 'fft', 'special']

export function camelCase(name) {
  return name.replace(/(?<=[A-Za-z0-9])_+([A-Za-z0-9])/g, (_, letter) => letter.toUpperCase())
}

function isHidden(schema) {
  if (unsafeNames.some((each) => each.name === schema.name)) return true
  if (hiddenNames.some((each) => each.pattern.test(schema.name))) return true
  return hiddenOverloads.some((each) => each.test(schema))
}

const scalarTypes = {
  Tensor: 'Tensor',
  int: 'number',
  SymInt: 'number',
  float: 'number',
  bool: 'boolean',
  Scalar: 'Scalar',
  str: 'string',
  ScalarType: 'DType',
  Layout: 'Layout',
  MemoryFormat: 'MemoryFormat',
  Device: 'Device',
  Generator: 'Generator',
  complex: 'Complex',
}

function inputType(type) {
  const optional = type.endsWith('?')
  const bare = optional ? type.slice(0, -1) : type
  const list = /^(\w+)(\?)?\[(\d*)\]$/.exec(bare)
  let result
  if (list) {
    const element = scalarTypes[list[1]]
    if (element === undefined) return undefined
    result = list[2] ? `readonly (${element} | null)[]` : `readonly ${element}[]`
    if (list[3] !== '' && element === 'number') result = `number | ${result}`
  } else {
    result = scalarTypes[bare]
    if (result === undefined) return undefined
  }
  return optional ? `${result} | null` : result
}

const outputTypes = {
  ...scalarTypes,
  Scalar: 'number',
  Layout: undefined,
  ScalarType: undefined,
  MemoryFormat: undefined,
}

function outputType(type) {
  if (type.endsWith('[]')) {
    const element = outputTypes[type.slice(0, -2)]
    return element === undefined ? undefined : `${element}[]`
  }
  return outputTypes[type]
}

function returnType(schema, isMethod) {
  if (schema.returns.length === 0) return 'void'
  if (schema.returns.length === 1) {
    return isMethod && schema.name.endsWith('_') && schema.returns[0].inPlace
      ? 'this'
      : outputType(schema.returns[0].type)
  }
  const types = schema.returns.map((each) => outputType(each.type))
  if (types.includes(undefined)) return undefined
  const tuple = `[${types.join(', ')}]`
  if (schema.returns[0].name === '') return tuple
  return `${tuple} & { ${schema.returns.map((each, index) => `${camelCase(each.name)}: ${types[index]}`).join('; ')} }`
}

const reserved = new Set([
  'self',
  'function',
  'default',
  'in',
  'var',
  'new',
  'delete',
  'this',
  'with',
  'return',
  'case',
])
const parameterName = (name) =>
  name === 'self' ? 'self' : reserved.has(camelCase(name)) ? `${camelCase(name)}_` : camelCase(name)

/** The call signatures of one overload. */
function signatures(schema, isMethod) {
  const output = returnType(schema, isMethod)
  if (output === undefined) return []
  const all = schema.arguments.map((each) => ({ ...each, tsType: inputType(each.type) }))
  if (all.some((each) => each.tsType === undefined)) return []
  const isFactory = all.some((each) => each.name === 'pin_memory') && all.some((each) => each.name === 'dtype')
  const positional = all.filter((each) => !each.keywordOnly).slice(isMethod ? 1 : 0)
  const keywords = all.filter((each) => each.keywordOnly)
  const required = positional.filter((each) => !each.hasDefault)
  const defaulted = positional.filter((each) => each.hasDefault)
  const property = (each) => `${camelCase(each.name)}${each.hasDefault ? '?' : ''}: ${each.tsType}`
  const options = (members) => {
    if (members.length === 0) return ''
    const plain = isFactory
      ? members.filter((each) => !['dtype', 'layout', 'device', 'pin_memory'].includes(each.name))
      : members
    const parts = [
      ...(isFactory ? ['TensorOptions'] : []),
      ...(plain.length > 0 ? [`{ ${plain.map(property).join('; ')} }`] : []),
    ]
    return `options${members.every((each) => each.hasDefault) ? '?' : ''}: ${parts.join(' & ')}`
  }
  const parameters = (list) =>
    list.map((each) => `${parameterName(each.name)}${each.hasDefault ? '?' : ''}: ${each.tsType}`)
  const found = []
  const optionsRequired = keywords.some((each) => !each.hasDefault)
  if (!(optionsRequired && defaulted.length > 0)) {
    found.push([...parameters(positional), options(keywords)].filter((part) => part !== ''))
  }
  if (defaulted.length > 0) found.push([...parameters(required), options([...defaulted, ...keywords])])
  // x.view(2, 3) beside x.view([2, 3])
  if (positional.length === 1 && /^(int|SymInt)\[\]$/.test(positional[0].type)) {
    found.push([`...${parameterName(positional[0].name)}: readonly number[]`])
  }
  return found.map((parts) => `(${parts.join(', ')}): ${output}`)
}

/** Overloads in the order in which they are tried: those with fewer arguments first, whole tensors before numbers. */
function compareOverloads(a, b) {
  const rank = (schema) => [
    /(^|_)vec$/.test(schema.overload) ? 1 : 0,
    schema.arguments.filter((each) => !each.hasDefault).length,
    schema.arguments.length,
  ]
  const [x, y] = [rank(a), rank(b)]
  for (const [index, value] of x.entries()) if (value !== y[index]) return value - y[index]
  return a.overload < b.overload ? -1 : 1
}

/** @param {readonly string[]} texts @param {string} version */
export function generateSurface(texts, version) {
  const groups = new Map()
  for (const text of texts) {
    if (!text.startsWith('aten::')) continue
    const schema = parseSchema(text)
    if (isHidden(schema)) continue
    const usable = signatures(schema, false).length > 0
    if (!usable) continue
    groups.set(schema.name, [...(groups.get(schema.name) ?? []), schema])
  }
  const names = [...groups.keys()].sort()
  const methods = []
  const methodTable = []
  const functions = []
  const spaces = Object.fromEntries(namespaces.map((space) => [space, []]))
  const quote = (text) => `'${text}'`
  for (const name of names) {
    const schemas = groups.get(name).sort(compareOverloads)
    const publicName = camelCase(name)
    const space = namespaces.find((each) => name.startsWith(`${each}_`))
    const comments = (list) => list.map((schema) => `   * ${schema.text.replace('*/', '* /')}`)
    const withSelf = schemas.filter(
      (schema) => schema.arguments[0]?.name === 'self' && schema.arguments[0].type === 'Tensor',
    )
    if (space === undefined && withSelf.length > 0 && !handwrittenMethods.has(publicName)) {
      methods.push('  /**', ...comments(withSelf), '   */')
      for (const line of new Set(withSelf.flatMap((schema) => signatures(schema, true))))
        methods.push(`  ${publicName}${line}`)
      methodTable.push(
        `  ${publicName}: ['aten::${name}', ${quote(withSelf.map((schema) => schema.overload).join(','))}],`,
      )
    }
    const overloads = schemas.map((schema) => quote(schema.overload)).join(', ')
    const types = [...new Set(schemas.flatMap((schema) => signatures(schema, false)))].map((line) => `  ${line}`)
    if (space !== undefined) {
      const short = camelCase(name.slice(space.length + 1))
      spaces[space].push('  /**', ...comments(schemas), '   */')
      spaces[space].push(
        `  ${short}: asFunction<{`,
        ...types.map((line) => `  ${line}`),
        `  }>('${space}.${short}', 'aten::${name}', [${overloads}]),`,
      )
    } else {
      const isReserved = ['var', 'delete', 'function', 'in', 'new'].includes(publicName)
      const local = isReserved ? `${publicName}_` : publicName
      functions.push('/**', ...comments(schemas).map((line) => line.slice(2)), ' */')
      functions.push(
        `${isReserved ? '' : 'export '}const ${local} = asFunction<{`,
        ...types,
        `}>('${publicName}', 'aten::${name}', [${overloads}])`,
      )
      if (isReserved) functions.push(`export { ${local} as ${publicName} }`)
    }
  }
  const header = [
    `// Generated by scripts/generate from the schemas of libtorch ${version}. Do not edit: npm run generate.`,
    '',
    "import { asFunction, installMethods } from './dispatch.js'",
    "import type { Generator } from './random.js'",
    "import type { Tensor } from './tensor.js'",
    "import type { Device, DType, Layout, MemoryFormat, Scalar, TensorOptions } from './types.js'",
    '',
  ]
  const lines = [
    ...header,
    '/** The operators of ATen as methods. */',
    'export interface TensorMethods {',
    ...methods,
    '}',
    '',
    'installMethods({',
    ...methodTable,
    '})',
    '',
    ...functions,
  ]
  for (const space of namespaces)
    lines.push('', `/** torch.${space} */`, `export const ${space} = {`, ...spaces[space], '}')
  return `${lines.join('\n')}\n`
}
