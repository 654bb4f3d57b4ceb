import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import * as torch from '../../src/torch/index.js'

/** torch.scope() for tests: nothing that a test makes outlives it, whatever it returns. */
export function inScope(run: () => void): void {
  torch.scope(() => {
    run()
  })
}

/** How many tensors are alive in this thread. */
export function liveTensors(): number {
  return torch.memory.counters().live
}

export interface GradcheckOptions {
  /** The step of the finite differences. Default: 1e-6. */
  step?: number
  /** Largest absolute difference. Default: 1e-5. */
  absolute?: number
  /** Largest relative difference. Default: 1e-3. */
  relative?: number
}

function numbersOf(tensor: torch.Tensor): number[] {
  return Array.from(tensor.toTypedArray(), Number)
}

/**
 * Holds the gradients of a function against finite differences, as torch.autograd.gradcheck does: every entry of the
 * Jacobian of every output by every input that requires a gradient. Inputs are float64 and must not be changed by the
 * function. Throws an error that names the worst entry.
 */
export function gradcheck(
  run: (...inputs: torch.Tensor[]) => torch.Tensor | readonly torch.Tensor[],
  inputs: readonly torch.Tensor[],
  options: GradcheckOptions = {},
): void {
  const { step = 1e-6, absolute = 1e-5, relative = 1e-3 } = options
  inScope(() => {
    const differentiable = inputs.filter((input) => input.requiresGrad)
    if (differentiable.length === 0) throw new Error('gradcheck: expected an input that requires a gradient')
    for (const input of differentiable) {
      if (input.dtype !== 'float64') throw new Error(`gradcheck: expected float64 inputs, but received ${input.dtype}`)
      if (!input.isContiguous()) throw new Error('gradcheck: expected contiguous inputs')
    }
    const outputsOf = (): readonly torch.Tensor[] => {
      const result = run(...inputs)
      return result instanceof torch.Tensor ? [result] : result
    }
    // all differences first: changing an input in place would spoil a graph that saved it
    const isFloating = torch.scope(() => outputsOf().map((output) => output.dtype.startsWith('float')))
    const differences = isFloating.map((floating, outputIndex) =>
      !floating
        ? []
        : differentiable.map((input) => {
            const columns: number[][] = []
            for (let entry = 0; entry < input.numel(); entry += 1) {
              const sides = [step, -step].map((change) =>
                torch.scope(() => {
                  const flat = input.detach().view(-1)
                  const before = flat.at(entry).item()
                  flat.setAt(entry, torch.tensor(before + change, { dtype: 'float64' }))
                  // a function may take gradients inside (of higher order), so recording stays on
                  const values = numbersOf(outputsOf()[outputIndex]!)
                  flat.setAt(entry, torch.tensor(before, { dtype: 'float64' }))
                  return values
                }),
              )
              columns.push(sides[0]!.map((value, index) => (value - sides[1]![index]!) / (2 * step)))
            }
            return columns
          }),
    )
    for (const [outputIndex, output] of outputsOf().entries()) {
      const numerical = differences[outputIndex]!
      if (!isFloating[outputIndex]) continue
      for (let row = 0; row < output.numel(); row += 1) {
        const selector = torch.zeros([output.numel()], { dtype: 'float64' })
        selector.setAt(row, 1)
        const gradients = output.requiresGrad
          ? torch.autograd.grad(output, differentiable, {
              gradOutputs: [selector.view(output.shape)],
              retainGraph: true,
              allowUnused: true,
            })
          : differentiable.map(() => null)
        for (const [inputIndex, gradient] of gradients.entries()) {
          const analytical = gradient === null ? undefined : numbersOf(gradient)
          for (const [entry, column] of numerical[inputIndex]!.entries()) {
            const expected = column[row]!
            const found = analytical?.[entry] ?? 0
            if (!(Math.abs(found - expected) <= absolute + relative * Math.abs(expected))) {
              throw new Error(
                `gradcheck: output ${outputIndex} at ${row} by input ${inputIndex} at ${entry}: autograd says ${found}, finite differences say ${expected}`,
              )
            }
          }
        }
      }
    }
  })
}

/** gradcheck() of the gradients themselves, as torch.autograd.gradgradcheck does. */
export function gradgradcheck(
  run: (...inputs: torch.Tensor[]) => torch.Tensor,
  inputs: readonly torch.Tensor[],
  options: GradcheckOptions = {},
): void {
  const differentiable = inputs.filter((input) => input.requiresGrad)
  torch.scope(() => {
    const weights = torch.scope(() => torch.randn(run(...inputs).shape, { dtype: 'float64' }))
    gradcheck(
      () => torch.autograd.grad(run(...inputs), differentiable, { gradOutputs: [weights], createGraph: true }),
      inputs,
      options,
    )
  })
}

/** Random float64 numbers that require a gradient, the same ones in each run. */
export function randomDouble(shape: readonly number[], seed = 0): torch.Tensor {
  const generator = new torch.Generator().manualSeed(seed)
  return torch.randn(shape, { generator, dtype: 'float64' }).requiresGrad_()
}

/** Collects what JavaScript let go of, and lets finalizers run: they are queued until the event loop turns. */
export async function collectGarbage(): Promise<void> {
  setFlagsFromString('--expose-gc')
  const collect: () => void = runInNewContext('gc')
  for (let turn = 0; turn < 3; turn += 1) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** Runs one of the programs beside the tests in a Node of its own, on the compiled package, and gives what it prints. */
export function runProgram(
  name: string,
  values: readonly string[] = [],
  options: { flags?: readonly string[]; environment?: NodeJS.ProcessEnv } = {},
): string {
  const compiled = fileURLToPath(new URL('../../dist/torch/index.js', import.meta.url))
  if (!existsSync(compiled)) {
    throw new Error(`expected the compiled package at ${compiled}: run \`npm test\`, or npx tsc -p tsconfig.build.json`)
  }
  const program = fileURLToPath(new URL(`./programs/${name}`, import.meta.url))
  const result = spawnSync(process.execPath, [...(options.flags ?? []), program, ...values], {
    encoding: 'utf8',
    timeout: 120_000,
    env: { ...process.env, ...options.environment },
  })
  if (result.status !== 0) {
    throw new Error(`${name} ended with ${result.status ?? result.signal}:\n${result.stdout}${result.stderr}`)
  }
  return result.stdout
}
