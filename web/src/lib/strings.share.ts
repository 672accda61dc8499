// SPDX-License-Identifier: Apache-2.0
/** The words of sharing a GPU: part of the catalogue (`strings.ts`), apart so that the worker carries no others. */

export const gpu = {
  notHere: {
    insecure_origin: 'Browsers give a graphics card to secure pages only, and this one is not.',
    unsupported_browser: 'This browser has no WebGPU, or it is switched off.',
    no_adapter: 'The browser finds no graphics card that it can use.',
    refused: (why: string) => `The browser does not give out the graphics card: ${why}`,
    device_lost: (why: string) => `The graphics card went away: ${why}`,
    out_of_memory: (why: string) => `The graphics card has no room for it: ${why}`,
  },
  remedies: {
    insecure_origin: 'Open the market by its HTTPS address; on the machine that runs it, by http://127.0.0.1 or http://localhost.',
    unsupported_browser:
      'Use a current Chrome, Edge, Safari or Firefox. In Chrome on Linux, switch on chrome://flags/#enable-unsafe-webgpu and start the browser again.',
    no_adapter:
      'Switch on hardware acceleration in the browser’s settings, update the graphics driver, then start the browser again. The page chrome://gpu (about:support in Firefox) says what is in the way.',
    refused: 'Allow WebGPU for this page in the browser’s settings; on a managed machine its administrator decides.',
    device_lost: 'Close other programs that use the graphics card, update its driver, then try again.',
    reload: 'Load the page again.',
  },
  checks: {
    notConnected: 'not connected',
    webgpu: {
      title: 'WebGPU',
      purpose: 'A tab reaches the graphics card by WebGPU.',
      required: 'a graphics card',
      fallback: 'computed on the processor',
      remedy: 'Switch on hardware acceleration in the browser’s settings and update the graphics driver.',
    },
    limits: {
      title: 'Largest array',
      purpose: 'Matrices and images of a job have to fit into arrays on the card.',
      remedy: 'Update the browser and the graphics driver.',
    },
    memory: {
      title: 'Memory that can be had',
      purpose: 'A job gets the memory that the offer names.',
      remedy: 'Close other pages and programs that use the graphics card.',
    },
    kernel: {
      title: (name: string) => `${name} on WebGPU`,
      purpose: 'A small job whose outputs the CPU back end knows, computed here and compared within rounding.',
      right: (ms: string) => `right, in ${ms}`,
      required: 'every element within rounding',
      remedy: 'Update browser and graphics driver, undo overclocking, then test again; else this card computes wrongly.',
    },
    rates: {
      title: 'Measured rates',
      purpose: 'Nobody is assigned a job whose time here cannot be forecast.',
      found: (here: number, all: number, gflops: number) => `${here} of ${all}${gflops ? `, matmul ${gflops} GFLOP/s` : ''}`,
      required: 'every kernel that runs here',
      remedy: 'Test again when the card has nothing else to do.',
    },
    bandwidth: {
      title: 'Way to the store',
      purpose: 'Inputs come and results go this way; a slow one keeps jobs waiting.',
      found: (up: string, down: string) => `${up} up, ${down} down`,
      required: (least: string) => `${least} each way`,
      unreachable: 'Look at your network, then test again.',
      slow: 'Use a faster line, or one that less else is using.',
    },
    clock: {
      title: 'Clock',
      purpose: 'The market judges by its own clock; a wrong one here only makes what you read hard to compare.',
      required: (within: string) => `within ${within}`,
      remedy: 'Let the system set its time.',
    },
  },
} as const;
