# SPDX-License-Identifier: Apache-2.0
"""A trial of hardware (trust C6): fill the claimed memory with what is dear to make, then show that it is there.

A page is a block of words, each made of two numbers of a seeded matrix product: making it takes 4 × depth operations a
word, reading it four bytes. When every device has filled its memory, a key is told, and each page's keyed digest must
come in a fraction of the time that making the pages again would take. Whoever has the seed checks any page by itself.
"""
