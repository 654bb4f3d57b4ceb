// npm run generate: writes src/torch/ops.generated.ts anew from the libtorch that is loaded.
import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { locateAddon } from '../../dist/setup/addon.js'
import { generateSurface } from './surface.mjs'

const native = createRequire(import.meta.url)(locateAddon())
const target = fileURLToPath(new URL('../../src/torch/ops.generated.ts', import.meta.url))
writeFileSync(target, generateSurface(native.schemas(), native.info().torchVersion))
console.log(`wrote ${target}`)
