import type { ArgumentsCamelCase, Argv } from 'yargs'
import { DEFAULT_TORCH, setup } from '../setup/install.js'
import { describeLibtorch } from '../setup/libtorch.js'
import { terminalReporter } from '../setup/report.js'

export const command = 'setup'
export const describe = 'Get libtorch, build the native add-on, and check that it loads'

interface Options {
  cuda: string | undefined
  torch: string | undefined
  libtorch: string | undefined
  offline: boolean
  ifNeeded: boolean
  force: boolean
}

export function builder(yargs: Argv) {
  return yargs
    .option('cuda', {
      type: 'string',
      describe:
        'auto (by the driver and the GPU), cpu, cu126, cu128 or cu130; unless given, a libtorch that is there is used',
    })
    .option('torch', { type: 'string', describe: `the version of libtorch, ${DEFAULT_TORCH} unless given` })
    .option('libtorch', {
      type: 'string',
      describe: 'a libtorch folder (or a torch folder of Python) to use from now on',
    })
    .option('offline', { type: 'boolean', default: false, describe: 'fetch nothing: a libtorch has to be there' })
    .option('if-needed', { type: 'boolean', default: false, describe: 'do nothing where the built add-on is there' })
    .option('force', { type: 'boolean', default: false, describe: 'build the add-on anew' })
    .example('$0 setup --cuda cpu', 'the CPU build, also where there is a GPU')
    .epilogue(
      'LIBTORCH names a libtorch folder to use, CLEFT_CACHE the folder for downloads and builds, CLEFT_TORCH_ARCHIVE a copy of the PyTorch archive. pip is used with your own configuration.',
    )
}

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const { cuda, torch, libtorch: folder, offline, ifNeeded, force } = options
  const result = await setup({ cuda, torch, libtorch: folder, offline, ifNeeded, force, reporter: terminalReporter() })
  if (result === null) return
  const { libtorch, addon } = result
  const devices = addon.info.devices.map((device) => device.name).join(', ')
  process.stdout.write(`libtorch ${describeLibtorch(libtorch)}\nadd-on   ${addon.file}\n`)
  process.stdout.write(
    `devices  cpu (${addon.info.threads} threads, ${addon.info.cpuCapability})${devices ? `, ${devices}` : ''}\n`,
  )
}
