/* Copyright accelsched contributors */
/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The PCI side of the lab's GPU: each function bound to this driver becomes a parent of mediated devices.
 * It has no list of ids, so it takes a device only when told to (driver_override); its twin stays free for vfio-pci.
 */
static unsigned int ports = 8;
module_param(ports, uint, 0444);
MODULE_PARM_DESC(ports, "serial ports of each GPU; labgpu-1 takes one, labgpu-2 takes two");

static int labgpu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	static const char * const sysfs_names[LABGPU_TYPES] = { "1", "2" };
	static const char * const pretty_names[LABGPU_TYPES] = { "Lab vGPU, one port", "Lab vGPU, two ports" };
	struct labgpu *gpu;
	int i;

	gpu = devm_kzalloc(&pdev->dev, sizeof(*gpu), GFP_KERNEL);
	if (!gpu)
		return -ENOMEM;

	atomic_set(&gpu->free_ports, ports);
	for (i = 0; i < LABGPU_TYPES; i++) {
		gpu->types[i].nr_ports = i + 1;
		gpu->types[i].type.sysfs_name = sysfs_names[i];
		gpu->types[i].type.pretty_name = pretty_names[i];
		gpu->offered[i] = &gpu->types[i].type;
	}
	pci_set_drvdata(pdev, gpu);
	return mdev_register_parent(&gpu->parent, &pdev->dev, &mtty_driver, gpu->offered, LABGPU_TYPES);
}

static void labgpu_remove(struct pci_dev *pdev)
{
	struct labgpu *gpu = pci_get_drvdata(pdev);

	mdev_unregister_parent(&gpu->parent);
}

static const struct pci_device_id labgpu_ids[] = { { } };

static struct pci_driver labgpu_driver = {
	.name = "labgpu",
	.id_table = labgpu_ids,
	.probe = labgpu_probe,
	.remove = labgpu_remove,
};

static int __init labgpu_init(void)
{
	int ret = mdev_register_driver(&mtty_driver);

	if (ret)
		return ret;
	ret = pci_register_driver(&labgpu_driver);
	if (ret)
		mdev_unregister_driver(&mtty_driver);
	return ret;
}
module_init(labgpu_init);

static void __exit labgpu_exit(void)
{
	pci_unregister_driver(&labgpu_driver);
	mdev_unregister_driver(&mtty_driver);
}
module_exit(labgpu_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Mediated devices on PCI functions, for tests; the device itself is the kernel's mtty sample");
