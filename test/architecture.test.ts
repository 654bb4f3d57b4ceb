import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { native } from '../src/torch/native.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const source = join(root, 'src')

function filesBelow(folder: string, isWanted: (path: string) => boolean, skip: readonly string[] = []): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) return skip.includes(entry.name) ? [] : filesBelow(path, isWanted, skip)
    return isWanted(path) ? [path] : []
  })
}

const sources = filesBelow(source, (path) => path.endsWith('.ts'))

/** What each folder of src/ may import, beside itself: architecture page, "The house". */
const below: Readonly<Record<string, readonly string[]>> = {
  setup: [],
  torch: ['setup'],
  models: ['torch', 'setup'],
  peft: ['models', 'torch', 'setup'],
  clip: ['peft', 'models', 'torch', 'setup'],
  data: ['torch', 'setup'],
  train: ['clip', 'peft', 'models', 'data', 'torch', 'setup'],
  eval: ['clip', 'peft', 'models', 'data', 'torch', 'setup'],
  cli: ['train', 'eval', 'clip', 'peft', 'models', 'data', 'torch', 'setup'],
}

/** The source without comments, so that words in them are not taken for code. */
function codeOf(path: string): string {
  return readFileSync(path, 'utf8')
    .replaceAll(/\/\*[\s\S]*?\*\//g, '')
    .replaceAll(/(^|\s)\/\/.*$/gm, '$1')
}

const importPattern = /(?:\bfrom\s*|\bimport\s*\(?\s*)(['"])(\.[^'"]*)\1/g

function folderOf(path: string): string | undefined {
  const parts = relative(source, path).split(sep)
  return parts.length > 1 ? parts[0] : undefined
}

describe('imports', () => {
  it('run downward only between the folders of src/', () => {
    const wrong: string[] = []
    for (const path of sources) {
      const from = folderOf(path)
      if (from === undefined) continue
      const allowed = below[from]
      if (allowed === undefined) {
        wrong.push(`${relative(root, path)}: the folder src/${from} has no place in the architecture`)
        continue
      }
      for (const match of codeOf(path).matchAll(importPattern)) {
        const target = join(dirname(path), match[2]!)
        const to = target.startsWith(source + sep) ? (folderOf(target) ?? 'the entry point') : 'outside of src'
        if (to !== from && !allowed.includes(to)) wrong.push(`${relative(root, path)} imports ${match[2]} (${to})`)
      }
    }
    expect(wrong).toEqual([])
  })

  it('of files end in .js, as ESM wants it', () => {
    const wrong = sources.flatMap((path) =>
      [...codeOf(path).matchAll(importPattern)]
        .filter((match) => !/\.(js|json)$/.test(match[2]!))
        .map((match) => `${relative(root, path)}: ${match[2]}`),
    )
    expect(wrong).toEqual([])
  })
})

describe('TypeScript', () => {
  it('has no `any`', () => {
    // `any` is also the name of an operator: a type stands behind one of these, and no call or entry before one of those
    const pattern = /(?:[:<|&,]|=>|\bas|\bsatisfies|\bextends|\bkeyof)\s*any\b(?!\s*[(:=.'])/g
    const wrong = sources.flatMap((path) =>
      [...codeOf(path).matchAll(pattern)].map((match) => `${relative(root, path)}: ${match[0]}`),
    )
    expect(wrong).toEqual([])
  })

  it('switches no check off', () => {
    const wrong = sources.filter((path) => /@ts-(ignore|nocheck|expect-error)/.test(readFileSync(path, 'utf8')))
    expect(wrong.map((path) => relative(root, path))).toEqual([])
  })
})

describe('C++', () => {
  const isNative = (path: string) => /\.(c|cc|cpp|cxx|cu|cuh|h|hpp|hxx)$/.test(path)

  it('includes the headers of torch and of Node in native/ alone', () => {
    const includes = /^\s*#\s*include\s*[<"](torch|ATen|c10|caffe2|napi|node_api|node_addon_api|uv\.h|v8)\b/m
    const elsewhere = filesBelow(root, isNative, ['node_modules', 'build', 'dist', '.git', 'native'])
    expect(
      elsewhere.filter((path) => includes.test(readFileSync(path, 'utf8'))).map((path) => relative(root, path)),
    ).toEqual([])
    const here = filesBelow(join(root, 'native'), isNative)
    expect(here.filter((path) => includes.test(readFileSync(path, 'utf8'))).length).toBeGreaterThan(5)
  })

  it('is reached through src/torch/native.ts alone', () => {
    const wrong = sources.filter(
      (path) => /\blocateAddon\s*\(\s*\)\s*\)/.test(codeOf(path)) && !path.endsWith(join('torch', 'native.ts')),
    )
    expect(wrong.map((path) => relative(root, path))).toEqual([])
  })
})

describe('the generated surface', () => {
  interface Generator {
    generateSurface(schemas: readonly string[], version: string): string
  }

  it.runIf(native.info().torchVersion.startsWith('2.13.'))('is what the generator writes', async () => {
    const url = pathToFileURL(join(root, 'scripts', 'generate', 'surface.mjs')).href
    const { generateSurface } = (await import(/* @vite-ignore */ url)) as Generator
    const version = native.info().torchVersion.replace(/\+.*/, '')
    const generated = generateSurface(native.schemas(), version).split('\n')
    const committed = readFileSync(join(source, 'torch', 'ops.generated.ts'), 'utf8').split('\n')
    // the first line that differs says more than megabytes of difference
    const first = generated.findIndex((line, index) => line !== committed[index])
    expect(
      first < 0 ? undefined : { line: first + 1, generated: generated[first], committed: committed[first] },
    ).toBeUndefined()
    expect(committed.length).toBe(generated.length)
  })
})
