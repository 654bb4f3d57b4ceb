import { existsSync, statSync } from 'node:fs'
import { basename, resolve } from 'node:path'

/** --with FOLDER... (also several times), --no-prebuilt. */
export function readArguments(words) {
  const folders = []
  let prebuilt = true
  let taking = false
  for (const word of words) {
    if (word === '--with') taking = true
    else if (word === '--no-prebuilt') prebuilt = false
    else if (word.startsWith('-') || !taking) {
      throw new Error(
        `--with FOLDER... or --no-prebuilt was expected, and '${word}' came; for example: npm run bundle -- --with models`,
      )
    } else folders.push(resolve(word))
  }
  if (taking && folders.length === 0) throw new Error('a folder was expected after --with, and none came')
  for (const folder of folders) {
    if (!existsSync(folder) || !statSync(folder).isDirectory()) {
      throw new Error(`a folder was expected after --with, and ${folder} is none`)
    }
  }
  const names = folders.map((folder) => basename(folder))
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) {
    throw new Error(`folders of different names were expected after --with, and two are called ${twice}; rename one`)
  }
  return { folders, prebuilt }
}
