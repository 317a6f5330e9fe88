/* Copyright accelsched contributors */
/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What one GPU of the lab holds. The sample driver has one pool of serial ports for the whole machine; here every PCI
 * function has its own, as every GPU has its own memory.
 */
#include <linux/pci.h>

enum { LABGPU_TYPES = 2 };

/* The sample's name: its device code finds the number of ports of a type by it. */
struct mtty_type {
	struct mdev_type type;
	int nr_ports;
};

struct labgpu {
	struct mdev_parent parent;
	struct mtty_type types[LABGPU_TYPES];
	struct mdev_type *offered[LABGPU_TYPES];
	atomic_t free_ports;
};

static atomic_t *labgpu_pool(struct mdev_type *type)
{
	return &container_of(type->parent, struct labgpu, parent)->free_ports;
}
