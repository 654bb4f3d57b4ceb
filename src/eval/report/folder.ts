import { messageOf } from '../../setup/errors.js'
import { makeFolders } from '../../setup/files.js'

/** Makes a folder, and those above it. @throws Error in one sentence where it cannot be made */
export function makeFolder(folder: string): void {
  try {
    makeFolders(folder)
  } catch (error) {
    throw new Error(
      `expected a folder for a report, but ${folder} cannot be made (${messageOf(error)}); give another place`,
      { cause: error },
    )
  }
}
